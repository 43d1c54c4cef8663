"""TLS from files, as Kubernetes mounts a Secret of that type: `tls.crt` (the chain) and `tls.key`.

A new pair is tried apart before the live context takes it: a pair that does not fit would leave it without any key.
Connections that are open keep what they agreed on; new ones get the new certificate.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

CERTIFICATE, KEY = "tls.crt", "tls.key"
_LOOK_SECONDS = 1.0
_log = logging.getLogger(__name__)


class WrongPair(Exception):
    """The certificate and key cannot be used; the message says which and why."""


class Tls:
    """The context of the public port, its certificate renewed when the files change."""

    def __init__(self, directory: Path) -> None:
        """Raises `WrongPair`."""
        self._directory = directory
        self._seen = _state(directory)
        self.rejected = 0
        self.context = _context(directory)

    def look(self) -> None:
        """Take up the pair if its files changed; one that cannot be used leaves the old one in force."""
        seen = _state(self._directory)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            _context(self._directory)
            _load(self.context, self._directory)
        except (WrongPair, OSError) as error:
            self.rejected += 1
            _log.error("the new certificate is not used, the old one stays: %s", error)
            return
        _log.info("certificate taken up directory=%s", self._directory)

    async def watch(self, sleep: Callable[[float], Any] = asyncio.sleep) -> None:
        """Look once a second, for ever."""
        while True:
            await sleep(_LOOK_SECONDS)
            self.look()


def _context(directory: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load(context, directory)
    return context


def _load(context: ssl.SSLContext, directory: Path) -> None:
    """The pair into `context`; raises `WrongPair`."""
    certificate, key = _pair(directory)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except _HasPassword:
        raise WrongPair(
            f"{directory / KEY} has a password, which nobody is there to give: store the key without one "
            "(openssl pkey -in KEY -out KEY-WITHOUT)"
        ) from None
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise WrongPair(
            f"{directory / CERTIFICATE} and {directory / KEY} must be a PEM chain and its key: {reason}"
        ) from error


class _HasPassword(Exception):
    """OpenSSL asks for the key's password."""


def _no_password() -> str:
    """Asked for a key's password. Without this OpenSSL would read it from the terminal, and the process stand still."""
    raise _HasPassword


def _pair(directory: Path) -> tuple[Path, Path]:
    """Both files with links followed first, so that a swap between the two reads cannot mix two pairs."""
    return (directory / CERTIFICATE).resolve(), (directory / KEY).resolve()


def _state(directory: Path) -> Any:
    return [_stamp(directory / name) for name in (CERTIFICATE, KEY)]


def _stamp(path: Path) -> Any:
    try:
        found = path.stat()
    except OSError as error:
        return error.errno
    return found.st_ino, found.st_dev, found.st_mtime_ns, found.st_size
