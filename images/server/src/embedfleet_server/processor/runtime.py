"""The loop's side of a processor: the core, its driver, and what becomes of each request."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from embedfleet_server.batching.core import BatchingCore
from embedfleet_server.batching.types import Bound, Refusal
from embedfleet_server.engine.dispatcher import Dispatcher
from embedfleet_server.engine.errors import DeadlineExceeded
from embedfleet_server.engine.forwards import Computed
from embedfleet_server.processor.callables import CallableWorkers
from embedfleet_server.processor.config import BatchProcessorConfig
from embedfleet_server.processor.door import Door
from embedfleet_server.processor.request import Payload, Request
from embedfleet_server.processor.results import ResultDelivery
from embedfleet_server.processor.stats import BatchStats
from embedfleet_server.processor.watch import Seen, Watch

_QUEUE = "process_func"  # the core's name for the one queue, and for the device that serves it
_STUCK = 30.0  # seconds after which a call is reported, where no caller's patience says so
_GRACE = 1.0  # seconds for calls that were cancelled to end


class Runtime:
    """Made and used on the loop's thread alone, but for what it says of itself."""

    def __init__(self, config: BatchProcessorConfig, workers: CallableWorkers, door: Door, stats: BatchStats) -> None:
        self._config, self._workers, self._door = config, workers, door
        self._loop = asyncio.get_running_loop()
        self._core = BatchingCore(config.max_workers, Bound(), config.max_workers, config.retry())
        self._core.add_model(_QUEUE, config.policy(config.max_batch_size))
        self._core.model_ready(_QUEUE, _QUEUE, padded=False)
        delivery = ResultDelivery(config, stats, self._ended)
        self._dispatcher = Dispatcher(
            self._core, self, lambda name, device: None, lambda record: None, config.retryable, delivery
        )
        self._started: list[float] = []
        self._open: set[Request] = set()
        self._nobody = asyncio.Event()
        self._by_deadline: deque[Request] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._watch = Watch(self._seen, config.item_timeout_seconds or _STUCK) if config.health else None

    @property
    def active(self) -> int:
        """Batches under way; from any thread."""
        return len(self._started)

    @property
    def size(self) -> int:
        """Most items in the next batch; from any thread."""
        return self._core.batch_size(_QUEUE)

    def empty_box(self) -> None:
        """Take in what came through the door, and drop what was cancelled."""
        came, cancelled = self._door.empty()
        now = self._loop.time()
        for request in came:
            self._accept(request, now)
        for request in cancelled:
            self._drop(request)
        self._publish()
        self._dispatcher.kick()

    def pause(self, *, paused: bool) -> None:
        """Start no call, or start again; what runs goes on."""
        self._core.paused = paused
        self._dispatcher.kick()

    def resize(self, size: int) -> None:
        """From now on `size`; learning starts anew there. `ValueError` when it is not within the bounds."""
        problem = self._config.size_problem(size)
        if problem is not None:
            raise ValueError(problem)
        if self._config.adaptive:
            self._core.learn_size_from(_QUEUE, size)
        else:
            self._core.change(_QUEUE, self._config.policy(size))

    async def forward(self, model: Any, batch: Sequence[Payload], /) -> Computed:
        """One batch; whoever waits for room may come in now that it left the queue."""
        started = self._loop.time()
        self._started.append(started)
        self._publish()
        try:
            return Computed(await self._workers.forward(model, batch), self._loop.time())
        finally:
            self._started.remove(started)

    async def stop(self, patience: float) -> bool:
        """Finish what was taken within `patience` seconds, cancel the rest; whether there was none."""
        until = self._loop.time() + patience
        self.empty_box()
        self.pause(paused=False)
        in_time = await self._emptied(patience)
        self.cancel_all()
        await self._dispatcher.close(max(0.0, until - self._loop.time()))
        await self._workers.close(_GRACE)
        for timer in (self._timer, self._watch):
            if timer is not None:
                timer.cancel()
        return in_time

    def cancel_all(self) -> None:
        """Every request that has no answer yet."""
        for request in list(self._open):
            self._drop(request)

    def abandon(self) -> None:
        """The loop has ended: nobody is left waiting for it, should it have ended by accident."""
        self._door.close()
        came, cancelled = self._door.empty()
        for request in came + cancelled:
            if not request.is_settled:
                request.forget()
        self.cancel_all()

    # A request, from the box to its end.

    def _accept(self, request: Request, now: float) -> None:
        if request.cancelled():
            request.forget()
            return
        costs = [1] * request.size
        work = self._core.submit(_QUEUE, request.payloads, costs, request, now, priority=request.priority)
        if isinstance(work, Refusal):
            raise AssertionError(f"This is a bug: the core, which has no bound here, refused: {work.reason}")
        request.work = work
        self._open.add(request)
        if self._config.item_timeout_seconds is not None:
            self._expect(request, now + self._config.item_timeout_seconds)

    def _drop(self, request: Request) -> None:
        if request.work is not None and not request.is_settled:
            self._core.cancel(request.work)
            request.forget()
            self._ended(request)

    def _ended(self, request: Request | None) -> None:
        """A request has its answer; or none has, but the queue changed."""
        if request is not None:
            self._open.discard(request)
        if not self._open:
            self._nobody.set()
        self._publish()

    async def _emptied(self, patience: float) -> bool:
        """Whether every request has its answer within `patience` seconds."""
        self._nobody.clear()
        if not self._open:
            return True
        try:
            await asyncio.wait_for(self._nobody.wait(), patience)
        except TimeoutError:
            return False
        return True

    def _publish(self) -> None:
        self._door.waiting(self._core.total_queue_depth, self._core.retry_after())

    def _seen(self) -> Seen:
        longest = self._loop.time() - min(self._started, default=self._loop.time())
        return Seen(self._door.depth, self._config.max_queued_requests, longest)

    # Deadlines: all requests have the same time, so they pass in the order of arrival and one timer does for all.

    def _expect(self, request: Request, deadline: float) -> None:
        request.deadline = deadline
        self._by_deadline.append(request)
        while self._by_deadline[0].is_settled:
            self._by_deadline.popleft()
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        self._timer = None
        while self._by_deadline:
            request = self._by_deadline[0]
            if not request.is_settled and request.deadline > self._loop.time():
                self._timer = self._loop.call_at(request.deadline, self._expire)
                return
            self._by_deadline.popleft()
            self._out_of_time(request)

    def _out_of_time(self, request: Request) -> None:
        if request.work is not None and not request.is_settled:
            self._core.cancel(request.work, failed=True)
            seconds = self._config.item_timeout_seconds
            request.fail(DeadlineExceeded(f"no answer within item_timeout_seconds ({seconds} s)"))
            self._ended(request)
