"""Those who send hostile texts to a server: a process of its own, so that its work is not the prober's."""

import asyncio
import itertools
import json
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from tests.benchmarks.child import answer_questions
from tests.support.hostile_texts import hostile_texts
from tests.support.wire_client import hear

SENDERS = 4
"""Twice the tokenizer's threads, so that a text always waits."""
_PATIENCE = 120.0  # seconds for one answer


def send_all(url: str, seconds: float) -> dict[str, Any]:
    """Send hostile texts for so long, one kind after the other, one or two a request, from several connections.

    Returns the answers by status.
    """
    bodies = [
        json.dumps({"input": [text] * (1 + n % 2)}, ensure_ascii=n % 4 < 2).encode()
        for n, text in enumerate(hostile_texts().values())
    ]
    return {"statuses": asyncio.run(_send_all(url, bodies, seconds))}


async def _send_all(url: str, bodies: Sequence[bytes], seconds: float) -> dict[str, int]:
    statuses: dict[str, int] = {}
    until = time.monotonic() + seconds
    turns = itertools.cycle(bodies)

    async def sender() -> None:
        while time.monotonic() < until:
            status = await asyncio.wait_for(_send(url, next(turns)), _PATIENCE)
            statuses[status] = statuses.get(status, 0) + 1

    await asyncio.gather(*(sender() for _ in range(SENDERS)))
    return statuses


async def _send(url: str, body: bytes) -> str:
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    heard = await hear(reader)
    writer.close()
    await writer.wait_closed()
    return "no answer" if heard is None else str(heard.status)


if __name__ == "__main__":
    answer_questions({"send_all": send_all})
