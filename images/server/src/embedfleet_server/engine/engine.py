"""The engine: one driver over the pure core. Owns tasks, threads, futures; everything else decides nothing of its own.

A request goes: reserve room → model loaded → tokenise → admit → queue → batch → forward → answer.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedfleet.api import Batching, BatchingSettings
from embedfleet_server.batching.core import BatchingCore
from embedfleet_server.batching.types import Bound, Policy, Refusal, Stats, Work
from embedfleet_server.engine.delivery import Answer, Pending
from embedfleet_server.engine.dispatcher import BatchRecord, Dispatcher
from embedfleet_server.engine.errors import (
    DeadlineExceeded,
    EngineError,
    ModelLoading,
    ModelNotFound,
    QueueFull,
    ShuttingDown,
    Stopped,
    TooLarge,
)
from embedfleet_server.engine.protocols import Encoded, Item, Model, ModelInfo
from embedfleet_server.engine.slots import ModelConfig, ModelStatus, Slot
from embedfleet_server.engine.tokenizing import Tokenizing
from embedfleet_server.engine.workers import ThreadWorkers, Workers


@dataclass(frozen=True, slots=True)
class DrainReport:
    """What a stop did: requests and inputs finished after it began, requests cut off, batches that never ended."""

    finished_requests: int
    finished_inputs: int
    refused: int
    failed: int
    stuck_batches: int


@dataclass(slots=True)
class _Since:
    """Counts since admission closed."""

    requests: int = 0
    inputs: int = 0
    refused: int = 0
    failed: int = 0


class Engine:
    """Queues per model, one semaphore, answers to the callers."""

    def __init__(
        self,
        service: str,
        models: Mapping[str, ModelConfig],
        settings: BatchingSettings,
        *,
        default_model: str | None = None,
        workers: Workers | None = None,
        observe: Callable[[BatchRecord], None] = lambda record: None,
    ) -> None:
        self.service, self.settings = service, settings
        self._default = default_model
        self._workers = workers or ThreadWorkers()
        self._observe = observe
        self._sizes: Counter[int] = Counter()
        self._core = _core(settings, models)
        self._slots = {name: Slot(config, self._workers, self._model_ready) for name, config in models.items()}
        self._tokenizing = Tokenizing(self._workers)
        self._dispatcher = Dispatcher(self._core, self._workers, self._model, self._batch_ended)
        self._scopes: set[asyncio.Timeout] = set()
        self._nobody = asyncio.Event()
        self._since: _Since | None = None
        self._stopped = self._started = False

    async def start(self) -> None:
        """Begin to load the eager models; does not wait for them."""
        self._started = True
        for slot in self._slots.values():
            if not slot.config.lazy:
                slot.start()

    def close_admission(self) -> None:
        """From now on new requests are refused; what was accepted goes on."""
        if self._since is None:
            self._since = _Since()

    async def stop(self, patience: float) -> DrainReport:
        """Finish what was accepted, at most `patience` seconds; past them the rest get `Stopped`. None hangs."""
        self.close_admission()
        since = self._since or _Since()
        if self._scopes and not await self._emptied(patience):
            self._stopped = True
            since.failed = len(self._scopes)
            for scope in self._scopes:
                scope.reschedule(asyncio.get_running_loop().time())
            await self._emptied(None)
        await self._close(patience)
        return DrainReport(since.requests, since.inputs, since.refused, since.failed, self._dispatcher.running)

    @property
    def is_running(self) -> bool:
        """Started, and taking requests."""
        return self._started and self._since is None

    @property
    def ready(self) -> bool:
        """Taking requests, with every required model loaded."""
        return self.is_running and all(s.state == "Ready" for s in self._slots.values() if s.config.required)

    def resolve(self, name: str | None) -> str:
        """The model meant by `name`, the default when None; raises `ModelNotFound` listing those there are."""
        if name is not None:
            if name not in self._slots:
                raise ModelNotFound(name, tuple(self._slots))
            return name
        if self._default is not None:
            return self._default
        if self.service in self._slots:
            return self.service
        if len(self._slots) > 1:
            raise ModelNotFound(None, tuple(self._slots))
        return next(iter(self._slots))

    def models(self) -> list[ModelStatus]:
        """Every model as it is now, in the order of the manifest."""
        return [slot.status() for slot in self._slots.values()]

    def info(self, model: str) -> ModelInfo | None:
        """What the model is, once it is loaded."""
        return self._slots[model].status().info

    async def embed(self, model: str, items: Sequence[Item], *, input_type: str | None = None) -> Answer:
        """Vectors of `items` by `model`, rows in their order; raises what `errors` lists.

        `input_type` ("query", "document") chooses the prompt; None is the model's own default.
        """
        slot = self._slots.get(model)
        if slot is None:
            raise ModelNotFound(model, tuple(self._slots))
        self._reserve(model, len(items))
        reservation = _Reservation(self._core, model, len(items))
        try:
            answer = await self._within_time(slot, items, input_type, reservation)
        finally:
            reservation.release()
        if self._since is not None:
            self._since.requests += 1
            self._since.inputs += len(items)
        return answer

    def queue_depth(self, model: str) -> int:
        """Inputs waiting for `model`."""
        return self._core.queue_depth(model)

    @property
    def total_queue_depth(self) -> int:
        """Inputs waiting over all models."""
        return self._core.total_queue_depth

    def stats(self) -> Stats:
        """The counts, at this instant."""
        return self._core.stats()

    @property
    def max_inputs(self) -> int:
        """Most inputs that one request may carry."""
        return self.settings.batching.max_queued_requests

    def retry_after(self) -> float:
        """Seconds until what waits now will have been computed."""
        return self._core.retry_after()

    def state(self) -> dict[str, Any]:
        """The engine's part of `/state`: queues, counts, sizes of the batches formed, speeds."""
        costs = self._core.costs()
        return {
            "generation": self.settings.generation,
            "queues": {name: self._core.queue_depth(name) for name in self._slots},
            "stats": {field: getattr(self.stats(), field) for field in Stats.__slots__},
            "batches": {"sizes": {str(size): count for size, count in sorted(self._sizes.items())}},
            "tokens_per_second": {name: costs[name].tokens_per_second() for name in self._slots},
        }

    async def _within_time(
        self, slot: Slot, items: Sequence[Item], input_type: str | None, reservation: "_Reservation"
    ) -> Answer:
        """The steps of one request, under the limit that no caller waits past."""
        limit = self.settings.batching.item_timeout_seconds
        try:
            async with asyncio.timeout(limit) as scope:
                self._scopes.add(scope)
                try:
                    return await self._steps(slot, items, input_type, reservation)
                finally:
                    self._leave(scope)
        except TimeoutError as error:
            raise self._out_of_time(slot, limit) from error

    async def _steps(
        self, slot: Slot, items: Sequence[Item], input_type: str | None, reservation: "_Reservation"
    ) -> Answer:
        model = await slot.get()
        encoded = await self._tokenizing.encode(model, items, prompt_of(model.info, input_type))
        reservation.release()
        pending, work = self._submit(slot.config.name, model.info, encoded)
        try:
            return await pending.future
        except asyncio.CancelledError:
            self._core.cancel(work)
            raise

    def _reserve(self, model: str, inputs: int) -> None:
        if self._since is not None:
            self._since.refused += 1
            raise ShuttingDown("the server is shutting down", self._core.retry_after())
        _raise_refused(self._core.reserve(model, inputs))

    def _submit(self, name: str, info: ModelInfo, encoded: list[Encoded]) -> tuple[Pending, Work]:
        loop = asyncio.get_running_loop()
        now = loop.time()
        pending = Pending(loop.create_future(), info, encoded, now)
        work = self._core.submit(name, encoded, [len(item.token_ids) for item in encoded], pending, now)
        if isinstance(work, Refusal):
            raise _refused(work)
        self._dispatcher.kick()
        return pending, work

    def _leave(self, scope: asyncio.Timeout) -> None:
        self._scopes.discard(scope)
        if not self._scopes:
            self._nobody.set()

    async def _emptied(self, patience: float | None) -> bool:
        """Whether every request has left within `patience` seconds."""
        self._nobody.clear()
        if not self._scopes:
            return True
        try:
            await asyncio.wait_for(self._nobody.wait(), patience)
        except TimeoutError:
            return False
        return True

    def _out_of_time(self, slot: Slot, limit: float) -> EngineError:
        if self._stopped:
            return Stopped("the server's time to drain ran out before this request was answered")
        if slot.model is None:
            return ModelLoading(f"model {slot.config.name!r} is still loading after {limit} s")
        return DeadlineExceeded(f"no answer within itemTimeoutSeconds ({limit} s)")

    async def _close(self, patience: float) -> None:
        await self._dispatcher.close(0.0 if self._stopped else patience)
        for slot in self._slots.values():
            await slot.close()
        self._workers.close()

    def _model(self, name: str) -> Model:
        model = self._slots[name].model
        if model is None:
            raise AssertionError(f"This is a bug: a batch was formed for {name!r}, which is not loaded")
        return model

    def _model_ready(self, name: str, info: ModelInfo) -> None:
        self._core.model_ready(name, info.device, padded=info.padded)

    def _batch_ended(self, record: BatchRecord) -> None:
        self._sizes[record.size] += 1
        self._observe(record)


class _Reservation:
    """Room held between arrival and admission, given back once."""

    __slots__ = ("_core", "_inputs", "_model")

    def __init__(self, core: BatchingCore, model: str, inputs: int) -> None:
        self._core, self._model, self._inputs = core, model, inputs

    def release(self) -> None:
        if self._inputs:
            self._core.release(self._model, self._inputs)
            self._inputs = 0


def prompt_of(info: ModelInfo, input_type: str | None) -> str:
    """The text put before each input: by `input_type`, else the model's own default; "" when there is none."""
    name = input_type or info.default_prompt
    return info.prompts.get(name, "") if name else ""


def policy_of(batching: Batching) -> Policy:
    """The core's values of one model from the contract's."""
    return Policy(
        max_batch_size=batching.max_batch_size,
        max_batch_tokens=batching.max_batch_tokens,
        max_wait=batching.max_wait_milliseconds / 1000,
        dispatch_when_idle=batching.dispatch_when_idle,
        sort_by_length=batching.sort_by_length,
    )


def _core(settings: BatchingSettings, models: Mapping[str, ModelConfig]) -> BatchingCore:
    whole = settings.batching
    core = BatchingCore(whole.max_concurrent_batches, Bound(whole.max_queued_requests, whole.max_queued_tokens))
    for name in models:
        own = settings.models.get(name)
        bound = Bound(own.max_queued_requests, own.max_queued_tokens) if own is not None else Bound()
        core.add_model(name, policy_of(settings.for_model(name)), bound)
    return core


def _raise_refused(refusal: Refusal | None) -> None:
    if refusal is not None:
        raise _refused(refusal)


def _refused(refusal: Refusal) -> EngineError:
    if refusal.retry_after is None:
        return TooLarge(refusal.reason)
    return QueueFull(f"the queue is full: {refusal.reason}", refusal.retry_after)
