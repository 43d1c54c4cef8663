"""HTTP/1.1 by hand, so that a test decides what is sent when, and sees exactly what came back."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Heard:
    """One answer."""

    status: int
    closes: bool
    """It says that the connection ends with it."""
    body: bytes

    @property
    def accepted(self) -> bool | None:
        """What an error says of it."""
        found: Any = json.loads(self.body).get("error", {}).get("accepted")
        return found if isinstance(found, bool) else None


def request(number: str, text: str) -> bytes:
    """`POST /v1/embeddings`, whole; `number` is its id."""
    body = json.dumps({"input": text}).encode()
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nX-Request-Id: {number}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def hear(reader: asyncio.StreamReader) -> Heard | None:
    """The next answer; None when the connection ended before its end."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    except (asyncio.IncompleteReadError, OSError):
        return None
    return Heard(int(head[0].split()[1]), headers.get("connection", "").lower() == "close", body)
