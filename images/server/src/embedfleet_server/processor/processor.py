"""`BatchProcessor`: from any thread and any event loop into batches of one callable."""

import logging
import os
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

from embedfleet_server.batching.types import NORMAL
from embedfleet_server.engine.errors import Stopped
from embedfleet_server.processor.callables import ProcessFunc
from embedfleet_server.processor.config import BatchProcessorConfig
from embedfleet_server.processor.entering import enter, enter_async
from embedfleet_server.processor.loop_thread import finished
from embedfleet_server.processor.request import Failed, Request
from embedfleet_server.processor.running import Running
from embedfleet_server.processor.stats import BatchStats

_log = logging.getLogger("embedfleet.processor")


class BatchProcessor:
    """Collects items into batches, calls a callable with them, and gives each caller its own result.

    >>> with BatchProcessor().start(lambda numbers: [2 * n for n in numbers]) as processor:
    ...     [future.result() for future in map(processor.enqueue_predict, range(4))]
    [0, 2, 4, 6]

    Every method may be called from any thread. Refusals raise `QueueFull`, `TooLarge` or `ShuttingDown`
    (`embedfleet_server.engine.errors`); wrong use raises `RuntimeError`, `TypeError` or `ValueError`.
    """

    def __init__(self, config: BatchProcessorConfig | None = None) -> None:
        self.config = config or BatchProcessorConfig()
        self.stats = BatchStats(self.config.monitoring_window)
        self._lock = threading.Lock()
        self._running: Running | None = None

    def start(self, process_func: ProcessFunc) -> Self:
        """Begin to take items for `process_func`; again after a `stop`, if so wished."""
        with self._lock:
            if self._running is not None and not self._running.is_stopped:
                raise RuntimeError("this BatchProcessor is started already: stop() it first")
            self._running = Running(self.config, process_func, self.stats)
        return self

    def stop(self, timeout: float | None = 30.0) -> bool:
        """Take nothing more and finish what was taken, ending a pause; whether all of it got its answer.

        Past `timeout` seconds (None: never) the Futures still pending are cancelled. A call that is then under way in a
        thread cannot be stopped: its thread ends when it returns, and does not keep Python from ending.
        A second stop waits for the first. Raises `RuntimeError` from inside process_func, which would wait for itself.
        """
        with self._lock:
            running = self._running
        return running.stop(timeout) if running is not None else True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def enqueue_predict(self, item: Any, timeout: float | None = None, priority: int = NORMAL) -> Future[Any]:
        """The Future of the item's result; it raises what process_func raised, and can be cancelled until it is done.

        With the queue full, `timeout` waits so many seconds for room; None or 0 raises `QueueFull` at once.
        """
        running = self._started()
        request = self._request([item], priority, single=True)
        # On the loop's own thread a wait for room would be a wait for itself.
        enter(running.door, request, None if running.is_loop_thread else timeout)
        return request

    def enqueue(self, item: Any, timeout: float | None = None, priority: int = NORMAL) -> None:
        """Fire and forget: a failure is logged and counted in `error_rate`. A refusal raises, as nothing was taken."""
        self.enqueue_predict(item, timeout, priority).add_done_callback(_log_failure)

    async def submit(
        self,
        item: Any,
        timeout: float | None = None,  # noqa: ASYNC109  # it limits the wait for room, not the whole call
        priority: int = NORMAL,
    ) -> Any:
        """The item's result, awaited on any event loop; a cancelled await costs no call. As `enqueue_predict` else."""
        request = self._request([item], priority, single=True)
        return await self._result(request, timeout)

    async def submit_batch(
        self,
        items: Iterable[Any],
        timeout: float | None = None,  # noqa: ASYNC109  # as in `submit`
        priority: int = NORMAL,
        *,
        return_exceptions: bool = False,
    ) -> list[Any]:
        """Results in the order of the items, which are taken together or not at all; [] gives [] at once.

        Raises the exception of the first item that failed; with `return_exceptions` it stands in the item's place.
        """
        listed = list(items)
        if not listed:
            return []
        results = await self._result(self._request(listed, priority, single=False), timeout)
        errors = [result.error for result in results if isinstance(result, Failed)]
        if errors and not return_exceptions:
            raise errors[0]
        return [result.error if isinstance(result, Failed) else result for result in results]

    def pause(self) -> None:
        """Start no call until `resume`; items are taken up to the bound, and what runs goes on."""
        self._started().pause(paused=True)

    def resume(self) -> None:
        """Start calls again."""
        self._started().pause(paused=False)

    def update_batch_size(self, size: int) -> None:
        """At most `size` items in the next calls; raises `ValueError` naming the bounds."""
        self._started().resize(size)

    def get_stats(self) -> dict[str, Any]:
        """The window's averages (see `BatchStats.get_stats`; 0.0 without `monitoring`) and the state at this instant.

        `system_load` is the machine's run queue over its cores (1.0: fully used), 0.0 where it has no such figure.
        """
        running = self._running
        now = running.state() if running is not None else {"current_batch_size": self.config.max_batch_size}
        return {**self.stats.get_stats(), **_IDLE, "system_load": _system_load(), **now}

    def _request(self, items: list[Any], priority: int, *, single: bool) -> Request:
        return Request(items, self.config.priority(priority), single=single)

    def _started(self) -> Running:
        running = self._running
        if running is None:
            raise RuntimeError("this BatchProcessor is not started: call start(process_func) first")
        return running

    async def _result(self, request: Request, timeout: float | None) -> Any:  # noqa: ASYNC109
        try:
            await enter_async(self._started().door, request, timeout)
            await finished(request)
        finally:
            request.cancel()  # when the awaiting task was cancelled; a request that is done cannot be
        if request.cancelled():
            raise Stopped("the BatchProcessor was stopped, and its timeout passed, before this item had its result")
        return request.result()


_IDLE = {"active_batches": 0, "queue_size": 0, "is_paused": False, "is_stopping": False}
"""The state before the first start."""


def _system_load() -> float:
    if not hasattr(os, "getloadavg"):
        return 0.0
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def _log_failure(future: Future[Any]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        _log.error("an item given to enqueue failed: %r", error)
