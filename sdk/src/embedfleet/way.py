"""How requests get to a server: addresses, connections, headers. `kube` has the ways that lead through a cluster."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import aiohttp

from embedfleet import sockets
from embedfleet.errors import BadInput


class Way(Protocol):
    """A way to one service, the same from every event loop and after a fork: what belongs to a loop is made anew."""

    @property
    def url(self) -> str:
        """The base of all addresses."""
        ...

    @property
    def proxy(self) -> str | None:
        """An HTTP proxy to go through."""
        ...

    @property
    def most_requests(self) -> int | None:
        """How many requests may be under way at once. None: as many as the server takes."""
        ...

    def connector(self) -> aiohttp.BaseConnector:
        """Fresh connections for the running loop."""
        ...

    async def headers(self) -> Mapping[str, str]:
        """What every request carries to be let through."""
        ...

    async def renew(self) -> bool:
        """Get new credentials after a 401 from what stands before the server; False: there are none to be had."""
        ...


@runtime_checkable
class Abandonable(Protocol):
    """A connector with more below it that came along with a fork and is the parent's."""

    def abandon(self) -> None:
        """Let go of it without touching a socket or the loop."""
        ...


@dataclass(frozen=True, slots=True)
class Direct:
    """Straight to the server's address."""

    url: str
    api_key: str | None = None
    ca: Path | None = None
    """Certificates to trust instead of the system's."""
    proxy: str | None = None
    most_requests: int | None = None

    def connector(self) -> aiohttp.BaseConnector:
        """See `Way`."""
        return sockets.connector(True if self.ca is None else trusting(self.ca))

    async def headers(self) -> Mapping[str, str]:
        """See `Way`."""
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    async def renew(self) -> bool:
        """See `Way`."""
        return False


def trusting(ca: Path) -> ssl.SSLContext:
    """TLS that trusts the certificates in the file `ca` and no others; `BadInput` when it holds none."""
    try:
        return ssl.create_default_context(cafile=str(ca))
    except (OSError, ssl.SSLError) as error:
        text = f"the CA file {str(ca)!r} (ca=, EMBEDFLEET_CA_FILE) cannot be used: {error}; it must hold certificates"
        raise BadInput(f"{text} in PEM form") from error
