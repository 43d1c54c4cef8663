"""The load generators: a process of its own that sends prepared requests and counts what comes back."""

import asyncio
import io
import json
import re
import resource
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np

from tests.benchmarks import loads
from tests.benchmarks.child import answer_questions
from tests.benchmarks.http11 import Connection, Lone, Reply

_CONNECTING = (
    200  # connections opened at once: more than this overruns a listener's backlog, which is not the point here
)
_COMPUTE = re.compile(rb"x-embedfleet-compute-milliseconds: *([\d.]+)", re.IGNORECASE)
_PATIENCE = 240.0  # seconds after which a request counts as hanging: far past every server's own limit


class WrongAnswer(Exception):
    """A server answered something else than the vectors asked for."""


def pattern(
    url: str, model: str, clients: int, texts: Sequence[str], size: int, wanted: loads.Format
) -> dict[str, Any]:
    """All `texts` in requests of `size`, `clients` at a time. Seconds from the first byte sent to the last answer."""
    requests = [(loads.request(url, model, some, wanted), len(some)) for some in loads.chunks(texts, size)]
    seconds, latencies = asyncio.run(_closed_loop(url, clients, requests, wanted))
    p50, p95, p99 = (float(np.quantile(latencies, part)) for part in (0.5, 0.95, 0.99))
    return {"seconds": seconds, "p50": p50, "p95": p95, "p99": p99}


def shorts(url: str, model: str, count: int, clients: int, size: int) -> dict[str, Any]:
    """`count` short texts in requests of `size`."""
    return pattern(url, model, clients, list(loads.short(count)), size, "float")


def alone(url: str, model: str, text: str) -> dict[str, Any]:
    """One text over a connection that is kept open; `around`: its seconds less those of the forward, where stated."""
    connection, request = _lone(url), loads.request(url, model, [text], "float")
    sent = time.perf_counter()
    reply = connection.post(request)
    seconds = time.perf_counter() - sent
    _check(reply, 1, "float")
    stated = _COMPUTE.search(connection.head)
    return {"seconds": seconds, "around": seconds - float(stated[1]) / 1000 if stated else None}


def flood(url: str, model: str, count: int) -> dict[str, Any]:
    """`count` single-text requests at the same moment, a connection each: how many got which answer."""
    allow_files(count + 200)
    requests = [loads.request(url, model, [text], "float") for text in loads.short(count)]
    return asyncio.run(_flood(url, requests))


def sdk(url: str, model: str, texts: Sequence[str]) -> dict[str, Any]:
    """All `texts` in one call of the SDK."""
    import embedfleet

    with embedfleet.connect(model, url=url) as service:
        service.embed(list(texts[:64]), progress=False)
        started = time.perf_counter()
        rows = service.embed(list(texts), progress=False)
        seconds = time.perf_counter() - started
    if rows.shape[0] != len(texts) or not np.isfinite(rows).all():
        raise WrongAnswer(f"an array of shape {rows.shape}, or one that is not finite")
    return {"seconds": seconds}


def sdk_flood(url: str, model: str, count: int) -> dict[str, Any]:
    """`count` calls of the SDK's `embed` at the same moment, one text each: how many gave a vector, or which error."""
    allow_files(count + 200)
    return asyncio.run(_sdk_flood(url, model, list(loads.short(count))))


def vectors(url: str, model: str, texts: Sequence[str]) -> dict[str, Any]:
    """The vectors themselves."""
    connection = Lone(url)
    try:
        reply = connection.post(loads.request(url, model, texts, "float"))
    finally:
        connection.close()
    _check(reply, len(texts), "float")
    return {"rows": [row["embedding"] for row in json.loads(reply[1])["data"]]}


async def _closed_loop(
    url: str, clients: int, requests: Sequence[tuple[bytes, int]], wanted: loads.Format
) -> tuple[float, list[float]]:
    connections = [await Connection.open(url) for _ in range(clients)]
    queue, latencies = iter(requests), list[float]()
    started = time.perf_counter()
    try:
        async with asyncio.TaskGroup() as group:
            for connection in connections:
                group.create_task(_client(connection, queue, wanted, latencies))
        return time.perf_counter() - started, latencies
    finally:
        for connection in connections:
            connection.close()


async def _client(
    connection: Connection, queue: Iterator[tuple[bytes, int]], wanted: loads.Format, latencies: list[float]
) -> None:
    for request, count in queue:
        sent = time.perf_counter()
        reply = await connection.post(request)
        latencies.append(time.perf_counter() - sent)
        _check(reply, count, wanted)


def _check(reply: Reply, count: int, wanted: loads.Format) -> None:
    """As many vectors as texts; counted, not parsed, so that checking costs next to nothing."""
    status, body = reply
    if status != 200:
        raise WrongAnswer(f"status {status}: {body[:500]!r}")
    found = len(np.load(io.BytesIO(body))) if wanted == "npy" else body.count(b'"index":')
    if found != count:
        raise WrongAnswer(f"{found} vectors where {count} were due: {body[:200]!r}")


@cache
def _lone(url: str) -> Lone:
    return Lone(url)


async def _flood(url: str, requests: Sequence[bytes]) -> dict[str, Any]:
    connections: list[Connection] = []
    for some in range(0, len(requests), _CONNECTING):
        opening = (Connection.open(url) for _ in requests[some : some + _CONNECTING])
        connections += await asyncio.gather(*opening)
    started = time.perf_counter()
    outcomes = await asyncio.gather(*map(_outcome, connections, requests))
    seconds = time.perf_counter() - started
    for connection in connections:
        connection.close()
    return {"seconds": seconds, "outcomes": dict(Counter(outcomes))}


async def _outcome(connection: Connection, request: bytes) -> str:
    try:
        async with asyncio.timeout(_PATIENCE):
            reply = await connection.post(request)
    except TimeoutError:
        return "hung"
    except OSError as error:
        return type(error).__name__
    if reply[0] == 200:
        _check(reply, 1, "float")
        return "vector"
    return str(reply[0])


async def _sdk_flood(url: str, model: str, texts: Sequence[str]) -> dict[str, Any]:
    import embedfleet

    async with await embedfleet.connect_async(model, url=url) as service:
        started = time.perf_counter()
        embedding = (service.embed(text) for text in texts)
        found = await asyncio.gather(*embedding, return_exceptions=True)
        seconds = time.perf_counter() - started
    outcomes = Counter(type(one).__name__ if isinstance(one, BaseException) else "vector" for one in found)
    return {"seconds": seconds, "outcomes": dict(outcomes)}


def allow_files(count: int) -> None:
    """Let this process open so many files, where the system does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


if __name__ == "__main__":
    handlers = (pattern, shorts, alone, flood, sdk, sdk_flood, vectors)
    answer_questions({handler.__name__: handler for handler in handlers})
