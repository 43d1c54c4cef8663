"""Who we are to one API server: tokens, certificates, and their renewal."""

import asyncio
import base64
import os
import ssl
import tempfile
import weakref
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from embedfleet import sockets
from embedfleet.errors import NoCluster
from embedfleet.kube import login
from embedfleet.kube.config import Context, Plugin, Server
from embedfleet.kube.login import Credential

_kept: dict[tuple[Plugin, Server], Credential] = {}
"""What plug-ins gave, so that several clients of one process ask for one login."""

_locks: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]" = weakref.WeakKeyDictionary()

Clock = Callable[[], datetime]


def _now() -> datetime:
    return datetime.now(UTC)


class Credentials:
    """Access as a kubeconfig's context has it; the same from every event loop and after a fork."""

    def __init__(self, context: Context, clock: Clock = _now) -> None:
        self.context = context
        self._clock = clock
        self._used: Credential | None = None

    @property
    def server(self) -> Server:
        """The API server."""
        return self.context.server

    async def headers(self) -> Mapping[str, str]:
        """What each request carries. Runs the login plug-in when there is one and nothing it gave is good any more."""
        user = self.context.user
        if user.plugin is not None:
            self._used = await self._credential(user.plugin)
            return _bearer(self._used.token)
        if user.token_file is not None:
            return _bearer(_token_in(user.token_file))  # each time: a pod's token is replaced while it runs
        if user.token is not None:
            return _bearer(user.token)
        if user.password is not None:
            pair = base64.b64encode(":".join(user.password).encode()).decode()
            return {"Authorization": f"Basic {pair}"}
        return {}

    async def renew(self) -> bool:
        """Drop what the API server has just refused, if there can be better; False: there cannot."""
        user = self.context.user
        if user.plugin is None:
            return False
        async with _lock():
            if _kept.get((user.plugin, self.server)) is self._used:  # nobody has renewed it meanwhile
                _kept.pop((user.plugin, self.server), None)
        return True

    def tls(self) -> ssl.SSLContext:
        """Whom we trust, and our certificate where there is one. Raises `NoCluster` for what is no PEM."""
        context = _named(self.server.tls_server_name)
        try:
            if self.server.insecure:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            elif self.server.ca is not None:
                context.load_verify_locations(cadata=self.server.ca.decode())
            else:
                context.load_default_certs()
            self._show_certificate(context)
        except (ssl.SSLError, OSError, UnicodeDecodeError, ValueError) as error:
            where = f"context {self.context.name!r} ({self.context.source})"
            raise NoCluster(f"the certificates of {where} cannot be used: {error}") from error
        return context

    def connector(self) -> aiohttp.TCPConnector:
        """Connections to the API server, without limit."""
        return sockets.connector(self.tls() if self.server.url.startswith("https") else True)

    async def ready(self) -> None:
        """Log in now, where that takes a plug-in, so that no short limit of a later request has to hold it."""
        await self.headers()

    async def _credential(self, plugin: Plugin) -> Credential:
        async with _lock():
            kept = _kept.get((plugin, self.server))
            if kept is None or not kept.is_good(self._clock()):
                kept = _kept[plugin, self.server] = await login.run(plugin, self.server)
            return kept

    def _show_certificate(self, context: ssl.SSLContext) -> None:
        user, given = self.context.user, self._used
        certificate, key = user.certificate, user.key
        if given is not None and given.certificate is not None:
            certificate, key = given.certificate, given.key
        if certificate is None:
            return
        with _private_file(certificate + b"\n" + (key or b"")) as path:
            context.load_cert_chain(path)


def _bearer(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def _token_in(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NoCluster(f"the token file {path} cannot be read: {error}") from error


def _lock() -> asyncio.Lock:
    """One login at a time on each loop."""
    return _locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())


class _Named(ssl.SSLContext):
    """TLS that asks for another name than the address has (`tls-server-name`)."""

    name: str

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        return super().wrap_bio(*args, **{**kwargs, "server_hostname": self.name})


def _named(name: str | None) -> ssl.SSLContext:
    if name is None:
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made = _Named(ssl.PROTOCOL_TLS_CLIENT)
    made.name = name
    return made


class _private_file:  # noqa: N801  # used like a function
    """A file that only this user may read, for as long as the block lasts: OpenSSL takes certificates from files."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __enter__(self) -> str:
        number, self._path = tempfile.mkstemp(prefix="embedfleet-")  # mode 0600
        with os.fdopen(number, "wb") as file:
            file.write(self._content)
        return self._path

    def __exit__(self, *_: object) -> None:
        Path(self._path).unlink(missing_ok=True)
