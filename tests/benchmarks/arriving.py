"""The load generator of overload: a process of its own that sends each request at its time, answered or not.

Open loop: callers that come do not know of those before them, so a slow server gets no fewer of them.
"""

import asyncio
import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.benchmarks import loads
from tests.benchmarks.child import answer_questions
from tests.benchmarks.clients import allow_files
from tests.benchmarks.http11 import Connection

_OPEN = 1600  # connections: as many as may wait in the server's queue, and those being refused
_AT_ONCE = 200  # opened together; see clients._CONNECTING
_PATIENT, _DEADLINE, _LEAVES = 0.7, 0.2, 0.1
"""Parts of the callers: those who wait, those with a deadline, those who hang up."""
_WARM_UP = 1.0  # seconds of a closed loop that do not count: its first batches are small
_PATIENCE = 40.0  # seconds for the last answers: past every limit of the server's
_DELAY = re.compile(rb"x-embedfleet-retry-after-milliseconds: *(\d+)", re.IGNORECASE)
_SEED = 7
_TEXTS = 20_000  # more than are sent in a run


@dataclass(slots=True)
class _Seen:
    """What the callers saw; seconds from the start of the run."""

    told: float = 0.0
    """Delay in the last refusal."""
    late: list[float] = field(default_factory=list)
    """How much later than planned each request was sent: the generator's own fault."""
    calls: list[tuple[float, str, float, float]] = field(default_factory=list)
    """When it was sent, how it ended, after how many seconds, and the delay told last before it was sent."""


def closed(url: str, model: str, clients: int, seconds: float) -> dict[str, Any]:
    """Vectors a second that so many clients get, each with one request at a time."""
    return {"rate": asyncio.run(_closed(url, _requests(url, model), clients, seconds))}


def arrive(url: str, model: str, rate: float, seconds: float) -> dict[str, Any]:
    """Send `rate` requests a second, of a Poisson process, for so long; wait for all answers."""
    allow_files(_OPEN + 400)
    arriving = _arrive(url, _requests(url, model), rate, seconds)
    seen = asyncio.run(asyncio.wait_for(arriving, seconds + _PATIENCE))
    return {"calls": seen.calls, "late": seen.late}


def _requests(url: str, model: str) -> list[bytes]:
    """Each text is another one: those alike would share a forward."""
    return [loads.request(url, model, [f"{n} {text}"], "float") for n, text in enumerate(loads.short(_TEXTS))]


async def _closed(url: str, requests: Sequence[bytes], clients: int, seconds: float) -> float:
    connections = await _opened(url, clients)
    since, done = time.perf_counter() + _WARM_UP, 0
    until = since + seconds

    async def client(number: int, connection: Connection) -> None:
        nonlocal done
        while time.perf_counter() < until:
            status, _ = await connection.post(requests[number % len(requests)])
            assert status == 200, f"a closed loop within the queue's bound was answered {status}"
            done += since < time.perf_counter() < until

    await asyncio.gather(*(client(number, connection) for number, connection in enumerate(connections)))
    for connection in connections:
        connection.close()
    return done / seconds


async def _arrive(url: str, requests: Sequence[bytes], rate: float, seconds: float) -> _Seen:
    draw, seen, free = random.Random(_SEED), _Seen(), await _opened(url, _OPEN)
    start, planned = time.perf_counter(), 0.0
    async with asyncio.TaskGroup() as group:
        while (planned := planned + draw.expovariate(rate)) < seconds:
            await asyncio.sleep(max(0.0, start + planned - time.perf_counter()))
            seen.late.append(time.perf_counter() - start - planned)
            group.create_task(_call(url, requests[len(seen.late) % len(requests)], draw.random(), free, seen, start))
    for connection in free:
        connection.close()
    return seen


async def _call(url: str, request: bytes, kind: float, free: list[Connection], seen: _Seen, start: float) -> None:
    """One caller; its patience is drawn by `kind`, from 0 to 1."""
    connection = free.pop() if free else await Connection.open(url)
    within, leaves = _patience(kind)
    if within is not None:
        stated = f"\r\nX-Embedfleet-Deadline-Milliseconds: {within * 1000:.0f}\r\n\r\n"
        request = request.replace(b"\r\n\r\n", stated.encode(), 1)
    sent, told = time.perf_counter(), seen.told
    try:
        async with asyncio.timeout(leaves):
            status, _ = await connection.post(request)
    except TimeoutError:
        connection.close()
        seen.calls.append((sent - start, "left", leaves or 0.0, told))
        return
    if found := _DELAY.search(connection.head):
        seen.told = int(found[1]) / 1000
    seen.calls.append((sent - start, str(status), time.perf_counter() - sent, told))
    free.append(connection)


def _patience(kind: float) -> tuple[float | None, float | None]:
    """Deadline stated, and seconds after which the caller hangs up; both spread evenly from 0.5 to 4.5 s."""
    if kind < _PATIENT:
        return None, None
    if kind < _PATIENT + _DEADLINE:
        return 0.5 + 4 * (kind - _PATIENT) / _DEADLINE, None
    return None, 0.5 + 4 * (kind - _PATIENT - _DEADLINE) / _LEAVES


async def _opened(url: str, count: int) -> list[Connection]:
    connections: list[Connection] = []
    for some in range(0, count, _AT_ONCE):
        opening = (Connection.open(url) for _ in range(min(_AT_ONCE, count - some)))
        connections += await asyncio.gather(*opening)
    return connections


if __name__ == "__main__":
    answer_questions({"closed": closed, "arrive": arrive})
