"""The load of many clients of a real model: short texts and mixed ones, alone and in batches, in each format."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable

from tests.support.texts import stdlib_words
from tests.support.wire_client import Heard, hear

_CLIENTS = 8
_LARGEST = 128  # texts of a request
_OVERLONG = 400  # words: more than the demo's model takes, which cuts texts at 256 tokens
_FULL = 64  # texts of 256 tokens: a batch of `maxBatchTokens`
_ACCEPTS = ("application/json", "application/json", "application/x-npy")
_ENCODINGS = ("float", "base64")


async def run(port: int, going: Callable[[], bool], seed: int = 0) -> Counter[int]:
    """Put load on the server until `going` says no; the answers by status, 0 where a connection broke."""
    statuses: Counter[int] = Counter()
    await asyncio.gather(*(_client(port, going, statuses, random.Random(seed + n)) for n in range(_CLIENTS)))
    return statuses


async def largest(port: int, requests: int, seed: int = 0) -> Counter[int]:
    """So many requests, one after the other, that each fill a batch to its most tokens: no other takes more."""
    rng, statuses = random.Random(seed), Counter[int]()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(requests):
        writer.write(_whole([_run(rng, _OVERLONG) for _ in range(_FULL)], rng))
        heard = await hear(reader)
        statuses[0 if heard is None else heard.status] += 1
    writer.close()
    await writer.wait_closed()
    return statuses


async def _client(port: int, going: Callable[[], bool], statuses: Counter[int], rng: random.Random) -> None:
    """Connection after connection, since every one is retired at some time."""
    while going():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        heard: Heard | None = None
        while going() and not (heard and heard.closes):
            writer.write(request(rng))
            heard = await hear(reader)
            statuses[0 if heard is None else heard.status] += 1
            if heard is None:
                break
        writer.close()
        await writer.wait_closed()


def request(rng: random.Random) -> bytes:
    """One request, whole: half of them carry one text, the others up to 128, small numbers more often."""
    count = 1 if rng.random() < 0.5 else round(_LARGEST ** rng.random())
    return _whole([_text(rng) for _ in range(count)], rng)


def _whole(texts: list[str], rng: random.Random) -> bytes:
    body = {"input": texts, "encoding_format": rng.choice(_ENCODINGS)}
    raw = json.dumps(body).encode()
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nAccept: {rng.choice(_ACCEPTS)}\r\nContent-Length: {len(raw)}"
    return f"{head}\r\n\r\n".encode() + raw


def _text(rng: random.Random) -> str:
    """Half of them of 1 to 5 words, half as long as in `texts.mixed_texts`."""
    length = rng.randrange(1, 6) if rng.random() < 0.5 else max(1, round(rng.lognormvariate(2.9, 0.8)))
    return _run(rng, length)


def _run(rng: random.Random, length: int) -> str:
    """Words as they follow each other somewhere."""
    words = stdlib_words()
    start = rng.randrange(len(words) - length)
    return " ".join(words[start : start + length])
