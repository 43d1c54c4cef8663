"""An event loop with a thread of its own, and how coroutines on other loops wait for what happens there."""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")
_GRACE = 1.0  # seconds for tasks that a callable left behind to be cancelled
_log = logging.getLogger("embedfleet.processor")


class LoopThread:
    """Runs until `stop`; a daemon, so that a processor never stopped does not keep Python from ending."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.at_end: Callable[[], object] = lambda: None
        """Done there when the loop has ended, however it did."""
        self.thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self.thread.start()

    def post(self, work: Callable[[], object]) -> None:
        """Have `work` done there, in order; nothing happens once the loop is closed."""
        try:
            self.loop.call_soon_threadsafe(work)
        except RuntimeError:
            _log.debug("the loop of this BatchProcessor is closed")

    def call(self, work: Callable[[], T]) -> T:
        """What `work` gives or raises there; waits for it."""

        async def worked() -> T:
            return work()

        if threading.current_thread() is self.thread:
            return work()
        return self.run(worked())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What a coroutine gives or raises there; waits for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def stop(self) -> None:
        """End the thread and close the loop, tasks left on it cancelled."""
        self.post(self.loop.stop)
        self.thread.join()

    def _serve(self) -> None:
        try:
            self.loop.run_forever()
        finally:
            self.at_end()
            self._close()

    def _close(self) -> None:
        left = asyncio.all_tasks(self.loop)
        for task in left:
            task.cancel()
        if left:
            self.loop.run_until_complete(asyncio.wait(left, timeout=_GRACE))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


async def finished(future: Future[Any]) -> None:
    """Wait, on any event loop, until `future` is done. Should this loop be closed before, nobody is disturbed."""
    loop = asyncio.get_running_loop()
    woken: asyncio.Future[None] = loop.create_future()
    future.add_done_callback(lambda _: _wake(loop, woken))
    await woken


def _wake(loop: asyncio.AbstractEventLoop, woken: asyncio.Future[None]) -> None:
    try:
        loop.call_soon_threadsafe(_set, woken)
    except RuntimeError:
        _log.warning("an event loop was closed while it awaited an answer; the answer is dropped")


def _set(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
