"""The least HTTP/1.1 client that is honest: prepared bytes out, status and body back.

It costs about a fifth of a full client, which matters where load generator and server share two cores; every server
measured is asked by the same code.
"""

import asyncio
import re
import socket
from urllib.parse import urlsplit

_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
Reply = tuple[int, bytes]
"""Status and body."""


class Connection(asyncio.Protocol):
    """One kept-alive connection, one request at a time; `head` is that of the last answer."""

    def __init__(self) -> None:
        self.head = b""
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._status = self._total = self._body = 0
        self._waiting: asyncio.Future[Reply] | None = None

    @classmethod
    async def open(cls, url: str) -> "Connection":
        """A connection to the host and port of `url`."""
        parts = urlsplit(url)
        _, connection = await asyncio.get_running_loop().create_connection(cls, parts.hostname or "", parts.port or 80)
        return connection

    async def post(self, request: bytes) -> Reply:
        """Send prepared bytes; `ConnectionError` when the server closes instead of answering."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the server closed the connection")
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiting

    def close(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's call."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """asyncio's call."""
        self._buffer += data
        if not self._total:
            self._read_head()
        if self._total and len(self._buffer) >= self._total:
            reply = self._status, bytes(self._buffer[self._body : self._total])
            self._buffer.clear()
            self._total = 0
            if self._waiting is not None and not self._waiting.done():
                self._waiting.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        """asyncio's call."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error or ConnectionResetError("the server closed the connection"))

    def _read_head(self) -> None:
        end = self._buffer.find(_END)
        if end >= 0:
            self.head = bytes(self._buffer[:end])
            self._status, length = parse_head(self.head)
            self._body = end + len(_END)
            self._total = self._body + length


def parse_head(head: bytes) -> tuple[int, int]:
    """Status and length of the body; `ValueError` for an answer that does not state its length."""
    found = _LENGTH.search(head)
    if found is None:
        raise ValueError(f"an answer without Content-Length: {head[:200]!r}")
    return int(head[9:12]), int(found[1])


class Lone:
    """A blocking connection for one request after the other: the least time a client can add.

    `head` is that of the last answer.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.head = b""

    def post(self, request: bytes) -> Reply:
        """Send prepared bytes and wait for the answer."""
        self._socket.sendall(request)
        data = self._receive(b"")
        while (end := data.find(_END)) < 0:
            data = self._receive(data)
        self.head, start = data[:end], end + len(_END)
        status, length = parse_head(self.head)
        while len(data) < start + length:
            data = self._receive(data)
        return status, data[start:]

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _receive(self, data: bytes) -> bytes:
        more = self._socket.recv(1 << 18)
        if not more:
            raise ConnectionResetError("the server closed the connection")
        return data + more
