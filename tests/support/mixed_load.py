"""Everything at once, for as long as it is wanted: good requests, bad ones, a device's faults, clients that leave."""

import asyncio
import contextlib
import itertools
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.support.wire_client import hear, request

_CLIENTS = 8
_FAULTS = ("BREAK", "NOTFINITE", "FULL")
_WORDS = 400  # different ones, so that what is kept for a word is kept for all of them soon


@dataclass
class Done:
    """How many of what."""

    statuses: Counter[int] = field(default_factory=Counter)
    left: int = 0
    """Clients that went away before their answer."""


async def run(port: int, going: Callable[[], bool], seed: int = 0) -> Done:
    """Put load on the server until `going` says no; every connection is closed at the end."""
    done = Done()
    numbers = itertools.count()
    await asyncio.gather(*(_client(port, going, done, numbers, random.Random(seed + n)) for n in range(_CLIENTS)))
    return done


async def _client(
    port: int, going: Callable[[], bool], done: Done, numbers: "itertools.count[int]", rng: random.Random
) -> None:
    while going():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for _ in range(rng.randrange(1, 40)):
                if not going() or not await _exchange(reader, writer, done, f"mixed-{next(numbers)}", rng):
                    break
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, done: Done, number: str, rng: random.Random
) -> bool:
    """One request; returns whether the connection goes on."""
    draw = rng.random()
    if draw < 0.05:  # broken off within the request
        whole = request(number, _text(rng))
        writer.write(whole[: rng.randrange(1, len(whole))])
        done.left += 1
        return False
    writer.write(_whole(number, draw, rng))
    if draw < 0.15:  # gone before the answer
        await writer.drain()
        done.left += 1
        return False
    heard = await hear(reader)
    if heard is None:
        return False
    done.statuses[heard.status] += 1
    return not heard.closes


def _whole(number: str, draw: float, rng: random.Random) -> bytes:
    if draw < 0.20:
        return request(number, rng.choice(_FAULTS))
    if draw < 0.25:
        return b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n" + b"not json!"
    if draw < 0.30:
        return b"GET /no/such/route HTTP/1.1\r\nHost: x\r\n\r\n"
    if draw < 0.40:
        return _many([_text(rng) for _ in range(rng.randrange(2, 64))])
    return request(number, _text(rng))


def _many(texts: list[str]) -> bytes:
    body = json.dumps({"input": texts}).encode()
    return b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def _text(rng: random.Random) -> str:
    return " ".join(f"word{rng.randrange(_WORDS)}" for _ in range(rng.randrange(1, 12)))
