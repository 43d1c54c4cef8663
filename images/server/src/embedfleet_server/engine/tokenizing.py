"""Tokenising before admission, so that bounds and batches count what the model will really compute.

Requests that arrive while the tokenizer threads are busy share the next call: one thread hop for many small requests.
Large ones go piece by piece, one piece at a time in the queue, and a text that is large by itself goes alone in a call
of its own: a million characters take a tokenizer seconds (all-MiniLM's 4 s for Hangul), and it computes texts that
share a call in a pool of the whole process, where the texts of other calls would wait behind them.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from embedfleet_server.engine.errors import BadItems, ItemError
from embedfleet_server.engine.protocols import Encoded, Item, Model, Side
from embedfleet_server.engine.workers import TOKENIZER_THREADS, Workers

_SHARED_CHARACTERS = 100_000  # of one call at most, unless it is one text: some 20 ms of tokenising, of odd texts 400


_T = TypeVar("_T")


@dataclass(slots=True)
class _Job:
    model: Model
    items: Sequence[Item]
    prompt: str
    input_type: str | None
    side: Side | None
    answer: asyncio.Future[list[Encoded]]

    @property
    def how(self) -> tuple[str, str | None, Side | None]:
        """What calls must agree in to be one."""
        return self.prompt, self.input_type, self.side

    @property
    def size(self) -> int:
        return _characters(self.items)


@dataclass(slots=True)
class _Aside:
    """Work of another kind, which takes its turn and shares its call with none."""

    call: Callable[[], Any]
    answer: asyncio.Future[Any]
    size: int


@dataclass(slots=True)
class _Lane:
    """Jobs that wait, oldest first, and how many more calls may be made for them at once."""

    free: int
    waiting: deque[_Job | _Aside] = field(default_factory=deque)


class Tokenizing:
    """The stage between arrival and admission."""

    def __init__(self, workers: Workers, calls_at_once: int = TOKENIZER_THREADS - 1) -> None:
        """`calls_at_once`: of small texts; there is one more for a large one, so that it takes up no call of theirs."""
        self._workers = workers
        self._small, self._large = _Lane(calls_at_once), _Lane(1)
        self._calls: set[asyncio.Task[None]] = set()

    async def encode(
        self,
        model: Model,
        items: Sequence[Item],
        prompt: str,
        input_type: str | None = None,
        side: Side | None = None,
    ) -> list[Encoded]:
        """Token ids of the items, in order; raises `BadItems`."""
        made: list[Encoded] = []
        errors: list[ItemError] = []
        for start, piece in pieces(items):
            job = _Job(model, piece, prompt, input_type, side, asyncio.get_running_loop().create_future())
            self._wait(job)
            try:
                made += await job.answer
            except BadItems as bad:
                errors += (replace(error, index=start + error.index) for error in bad.errors)
        if errors:
            raise BadItems(errors)
        return made

    async def aside(self, call: Callable[[], _T], characters: int = 0) -> _T:
        """What `call` gives, in a tokenizer thread, in its turn, and raises; it is about so many `characters`."""
        job = _Aside(call, asyncio.get_running_loop().create_future(), characters)
        self._wait(job)
        made: _T = await job.answer
        return made

    async def close(self) -> None:
        """Give up calls whose callers are gone."""
        for lane in (self._small, self._large):
            lane.waiting.clear()
        calls = set(self._calls)
        for call in calls:
            call.cancel()
        if calls:
            await asyncio.wait(calls)

    def _wait(self, job: _Job | _Aside) -> None:
        lane = self._large if job.size > _SHARED_CHARACTERS else self._small
        if not lane.waiting:  # once this turn of the loop is over, so that its arrivals meet
            asyncio.get_running_loop().call_soon(self._start, lane)
        lane.waiting.append(job)

    def _start(self, lane: _Lane) -> None:
        while lane.free and lane.waiting:
            lane.free -= 1
            call = asyncio.create_task(self._call(lane, _taken(lane.waiting)))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    async def _call(self, lane: _Lane, taken: list[_Job] | _Aside) -> None:
        try:
            if isinstance(taken, _Aside):
                await self._beside(taken)
                return
            jobs = [job for job in taken if not job.answer.cancelled()]
            if len(jobs) > 1 and await self._together(jobs):
                return
            for job in jobs:
                await self._alone(job)
        finally:
            lane.free += 1
            self._start(lane)

    async def _beside(self, job: _Aside) -> None:
        if job.answer.cancelled():
            return
        try:
            made = await self._workers.aside(job.call)
        except Exception as error:  # noqa: BLE001  # goes to the caller whose call it is
            if not job.answer.done():
                job.answer.set_exception(error)
            return
        if not job.answer.done():
            job.answer.set_result(made)

    async def _together(self, jobs: list[_Job]) -> bool:
        """One call for all; False when it failed, so that each has to be tried alone to see whose fault it was."""
        items = [item for job in jobs for item in job.items]
        try:
            encoded = await self._workers.encode(jobs[0].model, items, *jobs[0].how)
        except Exception:  # noqa: BLE001  # whose fault it was shows when each is tried alone
            return False
        position = 0
        for job in jobs:
            _answer(job, encoded[position : position + len(job.items)])
            position += len(job.items)
        return True

    async def _alone(self, job: _Job) -> None:
        try:
            _answer(job, await self._workers.encode(job.model, job.items, *job.how))
        except Exception as error:  # noqa: BLE001  # goes to the caller whose texts they are
            if not job.answer.done():
                job.answer.set_exception(error)


def pieces(items: Sequence[Item]) -> Iterator[tuple[int, Sequence[Item]]]:
    """The items cut where a call is full, each piece with the place of its first; one that is too large goes alone."""
    if _characters(items) <= _SHARED_CHARACTERS:
        yield 0, items
        return
    start = size = 0
    for place, item in enumerate(items):
        size += len(item)
        if size > _SHARED_CHARACTERS and place > start:
            yield start, items[start:place]
            start, size = place, len(item)
    yield start, items[start:]


def _taken(waiting: deque[_Job | _Aside]) -> list[_Job] | _Aside:
    """The oldest job and those behind it that can share its call."""
    first = waiting.popleft()
    if isinstance(first, _Aside):
        return first
    taken, room = [first], _SHARED_CHARACTERS - first.size
    while waiting:
        job = waiting[0]
        if isinstance(job, _Aside) or job.model is not first.model or job.how != first.how:
            break
        room -= job.size
        if room < 0:
            break
        waiting.popleft()
        taken.append(job)
    return taken


def _characters(items: Sequence[Item]) -> int:
    return sum(map(len, items))


def _answer(job: _Job, encoded: list[Encoded]) -> None:
    if not job.answer.done():
        job.answer.set_result(encoded)
