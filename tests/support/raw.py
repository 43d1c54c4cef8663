"""Bytes to a port and what comes back, for what no client library would send."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, as its bytes say."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


async def exchange(host: str, port: int, sent: bytes, *, half_close: bool = False) -> bytes:
    """What the server says to raw bytes until it closes the connection; `half_close` says that no more will come."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(sent)
        if half_close:
            writer.write_eof()
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


def answers(said: bytes) -> list[Answer]:
    """The answers in what was said, each with its length; one without ends where all ends."""
    found = []
    while said:
        head, _, said = said.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(first.split()[1])
        size = 0 if status < 200 else int(headers.get("content-length", len(said)))
        found.append(Answer(status, headers, said[:size]))
        said = said[size:]
    return found


def post(body: bytes, *headers: str, path: str = "/v1/embeddings", version: str = "1.1") -> bytes:
    """A POST, whole; further header lines before its length."""
    lines = [f"POST {path} HTTP/{version}", "Host: x", *headers, f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body


def get(path: str, *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    """A request without a body, after which the connection closes."""
    lines = [f"{method} {path} HTTP/{version}", "Host: x", *headers, "Connection: close"]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n"
