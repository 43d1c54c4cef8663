"""API keys from files: a directory as Kubernetes mounts a Secret, one file for each tenant, one key a line.

A line `sha256:HEX` is a key hashed at rest. Blank lines and lines that begin with # are passed over, and so are files
whose name begins with a dot (the kubelet's own). Only digests are held, and neither keys nor digests are logged.
"""

import asyncio
import hashlib
import hmac
import logging
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from embedfleet_server.app.errors import Unauthorized

TENANT: Final = web.RequestKey("tenant", str)
"""Key of the tenant whose API key a request came with."""
_LOOK_SECONDS = 1.0  # a few stats a second cost nothing, and a revoked key is out soon enough
_DIGEST = re.compile(r"sha256:([0-9a-fA-F]{64})")
_KEY = re.compile(r"[\x21-\x7e]{1,4096}")  # what a header field can carry without quoting
_HOW = "send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The keys that are valid now, as (tenant, SHA-256 of the key)."""

    entries: tuple[tuple[str, bytes], ...] = ()

    def tenant_of(self, key: str) -> str | None:
        """Whose key it is; None when nobody's. Takes the same time whichever key it is and whether it is one."""
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        found = [tenant for tenant, known in self.entries if hmac.compare_digest(known, digest)]
        return found[0] if found else None

    @property
    def tenants(self) -> list[str]:
        """Who has a key."""
        return sorted({tenant for tenant, _ in self.entries})


def presented(headers: Mapping[str, str]) -> list[str]:
    """The keys a request came with. `X-API-Key` comes first: proxies may put their own into `Authorization`."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    return [key for key in (headers.get("X-API-Key", "").strip(), bearer) if key]


def parse(tenant: str, text: str) -> tuple[list[bytes], list[str]]:
    """The digests in a tenant's file, and what is wrong with it in words that show no key."""
    digests, wrong = [], []
    for number, line in enumerate(text.splitlines(), 1):
        key = line.strip()
        if not key or key.startswith("#"):
            continue
        if (hashed := _DIGEST.fullmatch(key)) is not None:
            digests.append(bytes.fromhex(hashed[1]))
        elif key.startswith("sha256:"):
            wrong.append(f"{tenant}: line {number} is not sha256: and 64 hexadecimal digits")
        elif _KEY.fullmatch(key):
            digests.append(hashlib.sha256(key.encode()).digest())
        else:
            wrong.append(f"{tenant}: line {number} is no key: a key is printable ASCII without spaces")
    if not digests:
        wrong.append(f"{tenant}: the file holds no key")
    return digests, wrong


def read(directory: Path) -> tuple[KeyRing, list[str]]:
    """The keys in `directory`, and what is wrong there; `OSError` when it cannot be listed."""
    entries: list[tuple[str, bytes]] = []
    problems: list[str] = []
    for path in _files(directory):
        try:
            digests, wrong = parse(path.name, path.read_text())
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{path.name}: cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}")
            continue
        problems += wrong
        problems += [f"{path.name}: a key of {t} stands here too; it stays {t}'s" for t, d in entries if d in digests]
        entries += [(path.name, digest) for digest in digests]
    return KeyRing(tuple(entries)), problems


class Keys:
    """The key ring in force, read anew when the files change."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen: Any = None
        self.ring = KeyRing()
        self.rejected = 0
        self.look()

    def admit(self, request: web.Request) -> None:
        """Note the request's tenant; raises `Unauthorized` when it comes with no valid key."""
        given = presented(request.headers)
        if not given:
            raise Unauthorized(f"an API key is required; {_HOW}")
        tenants = [tenant for key in given if (tenant := self.ring.tenant_of(key)) is not None]
        if not tenants:
            raise Unauthorized(f"the API key is not valid; {_HOW}")
        request[TENANT] = tenants[0]

    def look(self) -> None:
        """Take up the files if they changed. A directory that cannot be listed leaves the keys as they are."""
        seen = _state(self._directory)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self.ring, problems = read(self._directory)
        except OSError as error:
            problems = [f"{self._directory}: cannot be listed: {error.strerror or error}"]
        self.rejected += len(problems)
        for problem in problems:
            _log.error("API keys: %s", problem)
        tenants = ", ".join(self.ring.tenants) or "none, so that every request is refused"
        _log.info("API keys taken up keys=%d tenants=%s", len(self.ring.entries), tenants)

    async def watch(self, sleep: Callable[[float], Any] = asyncio.sleep) -> None:
        """Look once a second, for ever."""
        while True:
            await sleep(_LOOK_SECONDS)
            self.look()


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if not path.name.startswith(".") and path.is_file())


def _state(directory: Path) -> Any:
    """What changes when a file does, or the link through which the kubelet swaps them all."""
    try:
        return [(path.name, _stamp(path)) for path in sorted(directory.iterdir()) if not path.name.startswith(".")]
    except OSError as error:
        return str(error)


def _stamp(path: Path) -> Any:
    try:
        found = path.stat()
    except OSError as error:
        return error.errno
    return found.st_ino, found.st_dev, found.st_mtime_ns, found.st_size, stat.S_IMODE(found.st_mode)
