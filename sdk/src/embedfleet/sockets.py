"""TCP sockets that notice a dead peer: a lost node sends no goodbye, and a call would wait for it as for a slow server.

The peer's kernel acknowledges probes and data however busy the server above it is, so what these options end is not a
slow server's connection. A system without one of them goes without it.
"""

import os
import socket
import ssl
from dataclasses import dataclass

import aiohttp

IDLE_SECONDS = 15.0
"""A connection that has been idle for so long is closed; the server would keep it for 75 s."""


@dataclass(frozen=True, slots=True)
class Watch:
    """When a peer's kernel counts as gone, in seconds. A peer that has said nothing for `quiet` is probed."""

    quiet: int = 10
    between: int = 5
    """From one probe to the next."""
    dead: float = 30.0
    """From its last sign of life; also the longest that it may leave data unacknowledged, or a full window unread.

    The last is a server that reads nothing of a request for so long, which ours answers with 408 itself.
    """

    def made(self, where: tuple[int, int, int, str, object]) -> socket.socket:
        """A socket for an address as `getaddrinfo` tells it; what aiohttp calls a `socket_factory`."""
        family, kind, protocol, *_ = where
        made = socket.socket(family, kind, protocol)
        try:
            self._set(made)
        except BaseException:
            made.close()
            raise
        return made

    def _set(self, made: socket.socket) -> None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in self._options().items():
            if (option := getattr(socket, name, None)) is not None:
                made.setsockopt(socket.IPPROTO_TCP, option, value)

    def _options(self) -> dict[str, int]:
        """Values by the names that they have somewhere: macOS calls TCP_KEEPIDLE TCP_KEEPALIVE."""
        probes = max(1, round((self.dead - self.quiet) / self.between))
        return {
            "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE": self.quiet,
            "TCP_KEEPINTVL": self.between,
            "TCP_KEEPCNT": probes,
            "TCP_USER_TIMEOUT": round(self.dead * 1000),  # Linux; without it unacknowledged data is sent for 15 minutes
        }


WATCH = Watch()
"""What every connection of the client has."""


def why(error: BaseException) -> str:
    """What kept a connection from being made, or ended it: the system's own words where there are any."""
    if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, aiohttp.ClientSSLError):
        found, number = error.os_error, error.os_error.errno or 0
        return os.strerror(number) if number > 0 else found.strerror or str(found)  # a resolver's numbers are negative
    return str(error) or type(error).__name__


def connector(tls: ssl.SSLContext | bool) -> aiohttp.TCPConnector:
    """Connections without limit (the gate bounds what is in flight) that notice a dead peer; `tls` as aiohttp's."""
    return aiohttp.TCPConnector(limit=0, ssl=tls, keepalive_timeout=IDLE_SECONDS, socket_factory=WATCH.made)
