"""Servers that follow one another under load: a client-side router that flips late, and clients of every temper.

The router is what an endpoint list is to clients in a cluster: it says where the next connection goes, late, and
touches no connection that exists.
"""

import asyncio
import contextlib
import itertools
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sized
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.ledger import Journal, Outcome, read
from tests.support.process import Process, process
from tests.support.wire_client import Heard, hear, request

POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "FAKE_SECONDS": "0.005"}
DRAIN = {"propagationSeconds": 1, "quietSeconds": 2, "maxLameDuckSeconds": 20}
"""`quietSeconds` is above the pauses of the slow and the idle clients, as a service's is above its clients'."""
_LATE = 100  # requests that the leaving server still gets before the router hears of it
_PIECE_SECONDS, _IDLE_SECONDS, _AWAY_SECONDS = 0.02, 0.5, 0.05
_PIPELINED = 4
_CLIENTS = 2  # of each temper


async def passed(seen: Sized, count: int) -> None:
    """Returns once so many more have been seen."""
    until = len(seen) + count
    while len(seen) < until:  # noqa: ASYNC110  # clients come by the hundred a second, and call nobody
        await asyncio.sleep(0.01)


@dataclass
class Load:
    """What all clients share: where to go, what became of each request."""

    port: int = 0
    going: bool = True
    seen: dict[str, Outcome] = field(default_factory=dict)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def name(self, temper: str) -> str:
        """The id of a new request."""
        return f"{temper}-{next(self._numbers)}"

    def note(self, number: str, heard: Heard | None) -> bool:
        """Keep how a request ended; returns whether its connection goes on."""
        self.seen[number] = _outcome(heard)
        return heard is not None and not heard.closes

    async def passed(self, count: int) -> None:
        """Returns once so many more requests have ended."""
        await passed(self.seen, count)


def _outcome(heard: Heard | None) -> Outcome:
    if heard is not None and heard.status == 200:
        return Outcome.ANSWERED
    if heard is not None and heard.accepted is False:
        return Outcome.REFUSED
    return Outcome.AMBIGUOUS


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Temper = Callable[[Load, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""What a client does with one connection, to its end."""


async def keep_alive(load: Load, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request after the other."""
    going = True
    while going and load.going:
        number = load.name("keep")
        writer.write(request(number, f"text {number}"))
        going = load.note(number, await hear(reader))


async def pipelined(load: Load, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Several at once, without waiting for answers; an answer that says close is the last there is."""
    going = True
    while going and load.going:
        numbers = [load.name("pipe") for _ in range(_PIPELINED)]
        writer.write(b"".join(request(number, f"text {number}") for number in numbers))
        said_close = False
        for number in numbers:
            if said_close:
                load.seen[number] = Outcome.UNPROCESSED
                continue
            heard = await hear(reader)
            going = load.note(number, heard)
            said_close = heard is not None and heard.closes


async def slow(load: Load, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Each request in pieces, its head and its body."""
    going = True
    while going and load.going:
        number = load.name("slow")
        await _drip(writer, request(number, f"text {number}"))
        going = load.note(number, await hear(reader))


async def half_sent(load: Load, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Breaks off within the head or within the body."""
    number = load.name("half")
    whole = request(number, f"text {number}")
    await _drip(writer, whole[: len(whole) - 3 if len(load.seen) % 2 else len(whole) // 2])
    load.seen[number] = Outcome.UNSENT


async def idle(load: Load, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A request now and then on a connection that stays open between them."""
    going = True
    while going and load.going:
        number = load.name("idle")
        writer.write(request(number, f"text {number}"))
        going = load.note(number, await hear(reader))
        if going:
            await asyncio.sleep(_IDLE_SECONDS)


async def asleep(load: Load, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Connects, and never says a word."""
    end = asyncio.ensure_future(reader.read())
    while load.going and not end.done():
        await asyncio.wait([end], timeout=_IDLE_SECONDS)
    end.cancel()


TEMPERS: tuple[Temper, ...] = (keep_alive, pipelined, slow, half_sent, idle, asleep)


async def _drip(writer: asyncio.StreamWriter, data: bytes) -> None:
    size = len(data) // 4 + 1
    for start in range(0, len(data), size):
        writer.write(data[start : start + size])
        await asyncio.sleep(_PIECE_SECONDS)


async def client(load: Load, temper: Temper) -> None:
    """Connection after connection, each to where the router points now."""
    while load.going:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", load.port)
        except OSError:  # nobody listens where the router points: a request that nobody answers
            load.seen[load.name("away")] = Outcome.AMBIGUOUS
            await asyncio.sleep(_AWAY_SECONDS)
            continue
        try:
            await temper(load, reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@dataclass(frozen=True, slots=True)
class Plan:
    """How a run goes; `sin` is the leaving servers' (see `serve_fake`)."""

    rollovers: int
    requests: int
    """At least so many, spread over the servers."""
    sin: str = ""
    flip_late: bool = False
    """The router hears of the new server only once the old one is gone."""
    drain: dict[str, int] = field(default_factory=lambda: dict(DRAIN))


async def run(directory: Path, plan: Plan, tell: Callable[[str], None] = lambda words: None) -> tuple[Load, Journal]:
    """Roll servers over under load; what the clients saw, and what the servers' journals say."""
    load = Load()
    async with contextlib.AsyncExitStack() as stack:
        current = await stack.enter_async_context(_server(directory, 0, plan))
        load.port = _port(current)
        clients = [asyncio.create_task(client(load, temper)) for temper in TEMPERS for _ in range(_CLIENTS)]
        for number in range(1, plan.rollovers + 1):
            await load.passed(plan.requests // (plan.rollovers + 1))
            following = await stack.enter_async_context(_server(directory, number, plan))
            await _roll(load, current, following, plan)
            current = following
            tell(f"{number} rollovers, {len(load.seen):,} requests")
        await load.passed(plan.requests // (plan.rollovers + 1))
        load.going = False
        await asyncio.gather(*clients)
        await _end(current)
    return load, await asyncio.to_thread(lambda: read(directory.glob("*/journal")))


async def _roll(load: Load, leaving: Process, following: Process, plan: Plan) -> None:
    """The old server is asked to leave, and the router hears of that late."""
    leaving.running.send_signal(signal.SIGTERM)
    if plan.flip_late or plan.sin == "no_drain":
        await asyncio.to_thread(leaving.running.wait, 60)
        await load.passed(1)
    else:
        await load.passed(_LATE)
    load.port = _port(following)
    await asyncio.to_thread(leaving.running.wait, 60)


async def _end(server: Process) -> None:
    server.running.send_signal(signal.SIGTERM)
    await asyncio.to_thread(server.running.wait, 60)


@contextlib.asynccontextmanager
async def _server(directory: Path, number: int, plan: Plan) -> AsyncIterator[Process]:
    own = directory / f"server-{number}"
    own.mkdir()
    extra = POD | {"FAKE_SIN": plan.sin}
    with process(own, "--journal", str(own / "journal"), extra=extra, drain=plan.drain) as started:
        await asyncio.to_thread(started.line, "is ready at")
        yield started


def _port(server: Process) -> int:
    return urlsplit(server.record.url).port or 0
