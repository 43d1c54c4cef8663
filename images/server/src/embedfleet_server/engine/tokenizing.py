"""Tokenising before admission, so that bounds and batches count what the model will really compute.

Requests that arrive while the tokenizer threads are busy share the next call: one thread hop for many small requests.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from embedfleet_server.engine.protocols import Encoded, Item, Model, Side
from embedfleet_server.engine.workers import Workers

_SHARED_CHARACTERS = 100_000  # one call takes no more than this beside its first request: some 20 ms of tokenising


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
        return sum(map(len, self.items))


@dataclass(slots=True)
class _Aside:
    """Work of another kind, which takes its turn and shares its call with none."""

    call: Callable[[], Any]
    answer: asyncio.Future[Any]


class Tokenizing:
    """The stage between arrival and admission."""

    def __init__(self, workers: Workers, calls_at_once: int = 2) -> None:
        self._workers = workers
        self._free = calls_at_once
        self._waiting: deque[_Job | _Aside] = deque()
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
        job = _Job(model, items, prompt, input_type, side, asyncio.get_running_loop().create_future())
        self._wait(job)
        return await job.answer

    async def aside(self, call: Callable[[], _T]) -> _T:
        """What `call` gives, in a tokenizer thread, in its turn; raises what it raises."""
        job = _Aside(call, asyncio.get_running_loop().create_future())
        self._wait(job)
        made: _T = await job.answer
        return made

    async def close(self) -> None:
        """Give up calls whose callers are gone."""
        self._waiting.clear()
        calls = set(self._calls)
        for call in calls:
            call.cancel()
        if calls:
            await asyncio.wait(calls)

    def _wait(self, job: _Job | _Aside) -> None:
        if not self._waiting:  # once this turn of the loop is over, so that its arrivals meet
            asyncio.get_running_loop().call_soon(self._start)
        self._waiting.append(job)

    def _start(self) -> None:
        while self._free and self._waiting:
            self._free -= 1
            call = asyncio.create_task(self._call(self._take()))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    def _take(self) -> list[_Job] | _Aside:
        """The oldest job and those behind it that can share its call."""
        first = self._waiting.popleft()
        if isinstance(first, _Aside):
            return first
        taken, room = [first], _SHARED_CHARACTERS
        while self._waiting:
            job = self._waiting[0]
            if isinstance(job, _Aside) or job.model is not first.model or job.how != first.how:
                break
            room -= job.size
            if room < 0:
                break
            self._waiting.popleft()
            taken.append(job)
        return taken

    async def _call(self, taken: list[_Job] | _Aside) -> None:
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
            self._free += 1
            self._start()

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


def _answer(job: _Job, encoded: list[Encoded]) -> None:
    if not job.answer.done():
        job.answer.set_result(encoded)
