"""Runs what the core decides: takes batches while permits last, awaits their forwards, hands out the rows."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from embedfleet_server.batching.core import BatchingCore
from embedfleet_server.batching.types import Batch
from embedfleet_server.engine.delivery import check, scatter, works
from embedfleet_server.engine.errors import BatchFailed
from embedfleet_server.engine.protocols import Model
from embedfleet_server.engine.workers import Workers

_log = logging.getLogger("embedfleet.engine")


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """One batch that ended; `tokens` as computed (padding included), `own_tokens` those of the inputs themselves."""

    model: str
    size: int
    tokens: int
    own_tokens: int
    queue_seconds: float
    compute_seconds: float
    failed: int


class Dispatcher:
    """The driver's hands: woken by arrivals, by the clock and by batches that end."""

    def __init__(
        self,
        core: BatchingCore,
        workers: Workers,
        model_of: Callable[[str], Model],
        observe: Callable[[BatchRecord], None],
    ) -> None:
        self._core, self._workers, self._model_of, self._observe = core, workers, model_of, observe
        self._running: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._kicked: asyncio.Handle | None = None

    @property
    def running(self) -> int:
        """Batches whose forward has not ended."""
        return len(self._running)

    def kick(self) -> None:
        """Something changed: look for batches once this turn of the loop is over, so that arrivals of one turn meet."""
        if self._kicked is None:
            self._kicked = asyncio.get_running_loop().call_soon(self._dispatch)

    async def close(self, patience: float) -> None:
        """Wait for running batches, at most `patience` seconds, and forget the timers."""
        if self._running:
            await asyncio.wait(self._running, timeout=patience)
        for handle in (self._timer, self._kicked):
            if handle is not None:
                handle.cancel()

    def _dispatch(self) -> None:
        self._kicked = None
        loop = asyncio.get_running_loop()
        while (batch := self._core.next_batch(loop.time())) is not None:
            task = asyncio.create_task(self._run(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        self._set_timer(loop)

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = self._core.wake_at()
        self._timer = None if due is None else loop.call_at(due, self._dispatch)

    async def _run(self, batch: Batch) -> None:
        """One batch, from forward to answers. The permit comes back and the next batch starts before rows go out."""
        loop = asyncio.get_running_loop()
        model = self._model_of(batch.model)
        started = loop.time()
        try:
            rows = await self._workers.forward(model, batch.payloads())
            seconds = loop.time() - started
            check(batch, rows, model.info.native_dimensions)
        except Exception as error:  # noqa: BLE001  # whatever a model raises belongs to the callers of this batch
            self._fail(batch, error, loop.time() - started)
        else:
            failed = scatter(batch, rows, seconds)
            self._end(batch, seconds, failed)

    def _end(self, batch: Batch, seconds: float, failed: int) -> None:
        self._core.complete(batch, seconds, failed)
        self._dispatch()
        own = sum(entry[1] for entry in batch.entries)
        waited = batch.formed - min(entry[2].arrived for entry in batch.entries)
        self._observe(BatchRecord(batch.model, len(batch.entries), batch.tokens, own, waited, seconds, failed))

    def _fail(self, batch: Batch, error: Exception, seconds: float) -> None:
        """The forward failed: every request in the batch gets the error, and what waits of them is dropped."""
        _log.error("a batch of %d for model %s failed", len(batch.entries), batch.model, exc_info=error)
        failure = error if isinstance(error, BatchFailed) else BatchFailed(f"the forward failed: {error}")
        alive = [work for work in works(batch) if not work.cancelled]
        failed = sum(not entry[2].cancelled for entry in batch.entries)
        for work in alive:
            work.handle.fail(failure)
        self._end(batch, seconds, failed)
        for work in alive:
            self._core.cancel(work, failed=True)
