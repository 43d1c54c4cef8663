"""Runs what the core decides: takes batches while permits last, awaits their forwards, hands out the rows."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from embedfleet_server.batching.core import BatchingCore
from embedfleet_server.batching.types import Batch, Fault
from embedfleet_server.engine.delivery import Delivery, RowDelivery
from embedfleet_server.engine.errors import DeviceLost
from embedfleet_server.engine.faults import MayPass, classify
from embedfleet_server.engine.forwards import Forwards
from embedfleet_server.engine.observer import BatchRecord
from embedfleet_server.engine.sparing import Sparing

_log = logging.getLogger("embedfleet.engine")


class Dispatcher:
    """The driver's hands: woken by arrivals, by the clock and by batches that end."""

    def __init__(
        self,
        core: BatchingCore,
        workers: Forwards,
        model_of: Callable[[str, str], Any],
        observe: Callable[[BatchRecord], None],
        may_pass: MayPass | None = None,
        delivery: Delivery | None = None,
    ) -> None:
        """`model_of` gives what computes the batches of a model on a device."""
        self._may_pass = may_pass
        self._delivery = delivery or RowDelivery()
        self._core, self._workers, self._model_of, self._observe = core, workers, model_of, observe
        self._running: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._kicked: asyncio.Handle | None = None
        self._lost = False
        self._sparing = Sparing()

    def kick(self) -> None:
        """Something changed: look for batches once this turn of the loop is over, so that arrivals of one turn meet."""
        if self._kicked is None:
            self._kicked = asyncio.get_running_loop().call_soon(self._dispatch)

    async def close(self, patience: float) -> int:
        """Wait for running batches, at most `patience` seconds; give up, and count, those that do not end."""
        stuck: set[asyncio.Task[None]] = set()
        if self._running:
            _, stuck = await asyncio.wait(self._running, timeout=patience)
        for task in stuck:
            task.cancel()
        if stuck:
            await asyncio.wait(stuck)
        for handle in (self._timer, self._kicked):
            if handle is not None:
                handle.cancel()
        return len(stuck)

    def _dispatch(self) -> None:
        self._kicked = None
        if self._lost:
            return
        loop = asyncio.get_running_loop()
        while (batch := self._core.next_batch(loop.time())) is not None:
            task = asyncio.create_task(self._run(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        self._set_timer(loop)

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = self._core.wake_at(loop.time())
        self._timer = None if due is None else loop.call_at(due, self._dispatch)

    async def _run(self, batch: Batch) -> None:
        """One batch, from forward to answers. The permit comes back and the next batch starts before rows go out."""
        loop = asyncio.get_running_loop()
        model = self._model_of(batch.model, batch.device)
        try:
            computed = await self._workers.forward(model, batch.payloads())
            missing = self._delivery.check(batch, computed.results, model)
        except asyncio.CancelledError:
            self._core.fail(batch, Fault.PERMANENT, loop.time())
            raise
        except Exception as error:  # noqa: BLE001  # whatever a model raises belongs to the callers of this batch
            self._fail(batch, error)
        else:
            seconds = max(0.0, computed.ended - batch.began)  # 0: it was done before its turn came, which tells nothing
            failed = sum(not batch.entries[position][2].cancelled for position in missing)
            self._core.complete(batch, seconds or None, failed, peak_mib=computed.peak_mib, now=computed.ended)
            self._dispatch()  # before all who get rows now have their turn, which takes milliseconds
            self._delivery.scatter(batch, computed.results, missing, seconds)
            self._record(batch, seconds, failed, computed.ended)

    def _fail(self, batch: Batch, error: Exception) -> None:
        """The core says which inputs failed for good; the rest it will hand out again, unless the device is lost."""
        self._lost = self._lost or isinstance(error, DeviceLost)
        fault, now = classify(error, self._may_pass), asyncio.get_running_loop().time()
        if (more := self._sparing.ask(now)) is not None:
            size = len(batch.entries)
            where = f" on {batch.device}" if len(self._core.devices()) > 1 else ""
            said = "a batch of %d for model %s failed%s (%s): %r%s"
            _log.warning(said, size, batch.model, where, fault.value, error, more)
        lost = self._core.fail(batch, fault, now, f"{type(error).__name__}: {error}")
        self._delivery.lose(lost, fault, error)
        self._dispatch()
        self._record(batch, None, len(lost), now)

    def _record(self, batch: Batch, seconds: float | None, failed: int, ended: float) -> None:
        own = sum(entry[1] for entry in batch.entries)
        waited = batch.began - min(entry[2].arrived for entry in batch.entries)
        self._observe(
            BatchRecord(
                batch.model, len(batch.entries), batch.tokens, own, waited, seconds, failed,
                began=batch.began, ended=ended, attempt=batch.attempt, entries=batch.entries, device=batch.device,
            )
        )  # fmt: skip
