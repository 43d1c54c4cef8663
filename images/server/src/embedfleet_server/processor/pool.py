"""Threads for plain callables. They are daemons: a callable that never returns must not keep Python from ending."""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call gave: a value, or whatever it raised."""

    value: Any = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class _Job:
    work: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[Outcome]

    def run(self) -> None:
        """Never raises: anything a callable may raise belongs to its callers, not to this thread."""
        outcome = outcome_of(self.work)
        try:
            self.loop.call_soon_threadsafe(_settle, self.done, outcome)
        except RuntimeError:  # the loop is closed: stopped past its timeout, and nobody waits for this any more
            return


class DaemonPool:
    """At most `size` threads, each started when it is first needed."""

    def __init__(self, size: int, name: str) -> None:
        self._size, self._name = size, name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._busy = 0

    async def run(self, work: Callable[[], Any]) -> Outcome:
        """Run `work` in a thread; call from one event loop only."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Outcome] = loop.create_future()
        self._busy += 1
        if self._busy > len(self._threads) < self._size:
            self._start()
        self._jobs.put(_Job(work, loop, done))
        try:
            return await done
        finally:
            self._busy -= 1

    def holds(self, thread: threading.Thread) -> bool:
        """Whether `thread` is one of these."""
        return thread in self._threads

    def close(self) -> None:
        """Each thread ends once its call has."""
        for _ in self._threads:
            self._jobs.put(None)

    def join(self, patience: float) -> int:
        """Wait `patience` seconds for the threads to end; how many have not."""
        until = time.monotonic() + patience
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return sum(thread.is_alive() for thread in self._threads)

    def _start(self) -> None:
        thread = threading.Thread(target=self._serve, name=f"{self._name}-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()
            del job  # hold no item and no result while waiting for the next


def outcome_of(work: Callable[[], Any]) -> Outcome:
    """What `work` gives or raises, be it SystemExit."""
    try:
        return Outcome(work())
    except BaseException as error:  # noqa: BLE001  # see `_Job.run`
        return Outcome(error=error)


def _settle(done: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not done.done():
        done.set_result(outcome)
