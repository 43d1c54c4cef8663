"""The engine: one driver over the pure core. Owns tasks, threads, futures; everything else decides nothing of its own.

A request goes: reserve room → model loaded → tokenise → admit → queue → batch → forward → answer.
"""

import asyncio
import math
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any, TypeVar

from embedfleet.api import Batching, BatchingSettings
from embedfleet.api.models import Task
from embedfleet_server.batching.types import CRITICAL, LOW, LOWEST, NORMAL, Bound, Refusal, Stats, Work
from embedfleet_server.engine.asking import (
    Asked,
    Check,
    Reservation,
    Steps,
    anything,
    prompt_of,
    raise_refused,
    refuse_truncated,
    refused,
)
from embedfleet_server.engine.cache import MIB
from embedfleet_server.engine.copies import copy_on
from embedfleet_server.engine.delivery import Answer, Pending
from embedfleet_server.engine.dispatcher import Dispatcher
from embedfleet_server.engine.errand import Errand
from embedfleet_server.engine.errors import (
    DeadlineExceeded,
    EngineError,
    InvalidRequest,
    ModelLoading,
    ModelNotFound,
    QueueFull,
    ShuttingDown,
    Stopped,
    TooLate,
)
from embedfleet_server.engine.figures import Figures
from embedfleet_server.engine.flights import Flight
from embedfleet_server.engine.health import Change
from embedfleet_server.engine.naming import choose
from embedfleet_server.engine.observer import BatchRecord, Observer
from embedfleet_server.engine.policies import bound_of, core_of, policy_of, retry_of
from embedfleet_server.engine.protocols import Encoded, Item, Model, ModelInfo, Side, Token
from embedfleet_server.engine.report import DrainReport, Since
from embedfleet_server.engine.sharing import Sharing
from embedfleet_server.engine.slots import ModelConfig, ModelStatus, Slot
from embedfleet_server.engine.tokenizing import Tokenizing
from embedfleet_server.engine.views import seen_by
from embedfleet_server.engine.warming import Warming
from embedfleet_server.engine.watch import Readings, Watch
from embedfleet_server.engine.workers import ThreadWorkers, Workers

_T = TypeVar("_T")


class Engine(Figures):
    """Queues per model, one semaphore, answers to the callers."""

    def __init__(
        self,
        service: str,
        models: Mapping[str, ModelConfig],
        settings: BatchingSettings,
        *,
        default_model: str | None = None,
        workers: Workers | None = None,
        observer: Observer | None = None,
        readings: Readings = dict,
        warm_up_seconds: float = 0.0,
    ) -> None:
        """`warm_up_seconds` are for all models that load at the start together; 0 is no warm-up."""
        self.service, self.settings = service, settings
        self._default = default_model
        self._workers = workers or ThreadWorkers()
        self._observer = observer or Observer()
        self._sizes: Counter[int] = Counter()
        self._busy = defaultdict(float)
        self._core = core_of(settings, models)
        share = warm_up_seconds / max(1, sum(not config.lazy for config in models.values()))
        self._warming = Warming(self._core, self._workers, readings, self._batching_of, share)
        self._slots = {
            name: Slot(config, self._workers, self._warming, self._model_ready) for name, config in models.items()
        }
        self._watch = Watch(self._core, models, readings)
        self._tokenizing = Tokenizing(self._workers)
        self._dispatcher = Dispatcher(self._core, self._workers, self._model, self._batch_ended)
        self._sharing = Sharing()
        self._sharing.cache.resize(settings.batching.vector_cache_mib * MIB)
        self._ask_for_bits()
        self._paused: set[str] = set()
        self._scopes: dict[asyncio.Timeout, None] = {}
        self._nobody = asyncio.Event()
        self._since: Since | None = None
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
            self._since = Since()

    async def stop(self, patience: float) -> DrainReport:
        """Finish what was accepted, at most `patience` seconds; past them the rest get `Stopped`. None hangs."""
        self.close_admission()
        since = self._since or Since()
        loop = asyncio.get_running_loop()
        until = loop.time() + patience
        if self._scopes and not await self._emptied(patience):
            self._stopped = True
            since.failed = max(since.failed, len(self._scopes))
            for scope in self._scopes:
                if not scope.expired():  # its own time may run out at this very moment
                    scope.reschedule(loop.time())
            await self._emptied(None)
        stuck = await self._close(until - loop.time())
        return DrainReport(since.requests, since.inputs, since.refused, since.failed, stuck)

    @property
    def is_running(self) -> bool:
        """Started, and taking requests."""
        return self._started and self._since is None

    @property
    def ready(self) -> bool:
        """Taking requests, with every required model loaded."""
        return self.is_running and all(s.state == "Ready" for s in self._slots.values() if s.config.required)

    def resolve(self, name: str | None, task: Task | None = None) -> str:
        """The model meant by `name`, the default when None; raises `ModelNotFound` listing those there are.

        Where the default is of another task, or there is none, the only model of `task` is meant; which model is for
        which task is known once it is loaded.
        """
        return choose(name, task, {status.name: status.info for status in self.models()}, self._default or self.service)

    def models(self) -> list[ModelStatus]:
        """Every model as it is now, in the order of the manifest; views of models are left out."""
        return [slot.status() for slot in self._slots.values() if not slot.config.is_view]

    def info(self, model: str) -> ModelInfo | None:
        """What the model is, once it is loaded."""
        return self._slots[model].status().info

    async def embed(
        self,
        model: str,
        items: Sequence[Item],
        *,
        input_type: str | None = None,
        priority: int = NORMAL,
        tenant: str = "",
        within: float | None = None,
        side: Side | None = None,
        truncate: bool = True,
        check: Check = anything,
        errand: Errand | None = None,
    ) -> Answer:
        """Vectors of `items` by `model`, rows in their order; raises what `errors` lists.

        `input_type` ("query", "document") chooses the prompt; None is the model's own default. `within` is the caller's
        own limit in seconds; `itemTimeoutSeconds` holds all the same. `side` is the end that what is too long loses;
        without `truncate` it is `BadItems` instead. `check` is called with the loaded model, before anything.
        Under an `errand` it takes up the places that this holds, and goes on while the server leaves.
        """
        least = self._limit(within)
        asked = Asked(
            items, input_type, priority, tenant, least, within is not None, side, truncate, check, errand is not None
        )
        if errand is not None:
            errand.make_room(len(items))
        started = asyncio.get_running_loop().time()
        answer = await self._admitted(model, asked, lambda slot, until, room: self._steps(slot, until, room, asked))
        self._observer.answered(model, asyncio.get_running_loop().time() - started)
        return answer

    async def tokenize(
        self,
        model: str,
        texts: Sequence[str],
        *,
        special: bool = True,
        prompt_name: str | None = None,
        tenant: str = "",
        within: float | None = None,
        check: Check = anything,
        errand: Errand | None = None,
    ) -> list[list[Token]]:
        """The tokens of `texts`, none cut off; a prompt of the model is put before each where it is named.

        Takes places in the queue's bound while it lasts, so that who asks for much is refused as with vectors.
        """

        def call(loaded: Model) -> list[list[Token]]:
            prompt = prompt_of(loaded.info, prompt_name) if prompt_name else ""
            return loaded.tokenize([prompt + text for text in texts], special=special)

        return await self._aside(model, texts, call, tenant, within, check, errand)

    async def decode(
        self,
        model: str,
        ids: Sequence[Sequence[int]],
        *,
        special: bool = False,
        tenant: str = "",
        within: float | None = None,
        check: Check = anything,
    ) -> list[str]:
        """The text of each list of token ids; see `tokenize`."""
        return await self._aside(model, ids, lambda loaded: loaded.decode(ids, special=special), tenant, within, check)

    async def _aside(
        self,
        model: str,
        items: Sequence[Item],
        call: Callable[[Model], _T],
        tenant: str,
        within: float | None,
        check: Check,
        errand: Errand | None = None,
    ) -> _T:
        """What `call` gives for the loaded model, in a tokenizer thread."""
        least = self._limit(within)
        asked = Asked(
            items, None, NORMAL, tenant, least, within is not None, check=check, is_accepted=errand is not None
        )
        if errand is not None:
            errand.make_room(len(items))

        async def steps(slot: Slot, _: float, __: Reservation) -> _T:
            loaded = await slot.get()
            check(loaded.info)
            return await self._tokenizing.aside(lambda: call(loaded), sum(map(len, items)))

        return await self._admitted(model, asked, steps)

    @asynccontextmanager
    async def errand(
        self, model: str, inputs: int, *, priority: int = NORMAL, tenant: str = "", within: float | None = None
    ) -> AsyncGenerator[Errand]:
        """Let several requests in as one, with places held for `inputs` of `model`: all of them, or none.

        Raises what keeps a request out. A stop waits for its end; once its time is up, or `within` seconds have
        passed, what runs inside is cancelled, and `Stopped` or `DeadlineExceeded` raised.
        """
        limit = math.inf if within is None else within
        slot = self._slots[model]
        self._reserve(model, Asked([""] * inputs, None, priority, tenant, limit, within is not None))
        reservation, loop = Reservation(self._core, model, inputs, tenant), asyncio.get_running_loop()
        until = loop.time() + limit
        try:
            async with asyncio.timeout(within) as scope:
                self._scopes[scope] = None
                try:
                    yield Errand(priority, tenant, reservation, lambda: None if within is None else until - loop.time())
                finally:
                    self._leave(scope)
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise self._out_of_time(slot, limit) from error
        finally:
            reservation.release()
        self._finished(inputs)

    def _limit(self, within: float | None) -> float:
        """Seconds from now: the service's limit, or the caller's own where that is less."""
        return min(float(self.settings.batching.item_timeout_seconds), math.inf if within is None else within)

    async def _admitted(self, model: str, asked: Asked, steps: Steps[_T]) -> _T:
        """The steps of a request with room reserved for it."""
        slot = self._slots.get(model)
        if slot is None:
            raise ModelNotFound(model, tuple(self._slots))
        self._reserve(model, asked)
        reservation = Reservation(self._core, model, len(asked.items), asked.tenant)
        try:
            answer = await self._within_time(slot, asked, steps, reservation)
        finally:
            reservation.release()
        if not asked.is_accepted:
            self._finished(len(asked.items))
        return answer

    def _finished(self, inputs: int) -> None:
        """A request was answered; counted where the server is leaving."""
        if self._since is not None:
            self._since.requests += 1
            self._since.inputs += inputs

    def look(self) -> list[Change]:
        """Judge health now; returns what changed since the last look."""
        return self._watch.look(asyncio.get_running_loop().time(), self.settings.batching)

    def state(self) -> dict[str, Any]:
        """The engine's part of `/state`: queues, counts, sizes of the batches formed, speeds."""
        return {
            "generation": self.settings.generation,
            "queues": {name: self._core.queue_depth(name) for name in self._slots},
            "stats": {field: getattr(self.stats(), field) for field in Stats.__slots__},
            "health": [
                {"code": f.code, "severity": f.severity.name, "model": f.model, "message": f.message}
                for f in self._watch.findings
            ],
            "health_counts": self._watch.counts,
            "shared": self.shared(),
            "batches": {"sizes": {str(size): count for size, count in sorted(self._sizes.items())}},
            "wait_seconds": {name: round(self._core.wait(name), 3) for name in self._slots},
            "batch_sizes": {name: self._core.batch_size(name) for name in self._slots},
            "breakers": {name: self._core.breaker_of(name)[0].value for name in self._slots},
            "tokens_per_second": {name: self._core.tokens_per_second(name) for name in self._slots},
            "devices": {name: asdict(figures) for name, figures in self.devices().items()},
        }

    def shared(self) -> dict[str, int]:
        """Inputs that joined others like them since the start, and what the cache holds, found and did not find."""
        cache = self._sharing.cache
        kept = {"cached": len(cache), "cache_bytes": cache.bytes, "cache_hits": cache.hits}
        return {"joined": self._sharing.joined, "cache_misses": cache.misses, **kept}

    def apply(self, settings: BatchingSettings) -> None:
        """Take up new values while running; what waits stays and is served by them."""
        self.settings = settings
        whole = settings.batching
        self._core.permits = whole.max_concurrent_batches
        self._core.bound = Bound(whole.max_queued_requests, whole.max_queued_tokens)
        self._core.retry = retry_of(whole)
        self._sharing.cache.resize(whole.vector_cache_mib * MIB)
        for name in self._slots:
            self._core.change(name, policy_of(settings.for_model(name)), bound_of(settings, name))
            self._core.pause(name, paused=name in self._paused or settings.for_model(name).paused)
        self._ask_for_bits()
        self._dispatcher.kick()

    def _ask_for_bits(self) -> None:
        for name, slot in self._slots.items():
            slot.bits.ask(slot.model, self.settings.for_model(name).deterministic)

    def pause(self, model: str | None = None, *, paused: bool = True) -> None:
        """Start nothing of `model` (of all, when None), or start again: queued work stays, new work is admitted."""
        wanted = None if model is None else self.resolve(model)
        names = [name for name in self._slots if wanted in (None, name, seen_by(name))]
        for name in names:
            (self._paused.add if paused else self._paused.discard)(name)
            self._core.pause(name, paused=paused or self.settings.for_model(name).paused)
        self._dispatcher.kick()

    @property
    def paused(self) -> list[str]:
        """The models of which nothing is started."""
        return [name for name in self._slots if self._core.is_paused(name)]

    async def _within_time(self, slot: Slot, asked: Asked, steps: Steps[_T], reservation: Reservation) -> _T:
        """The steps of one request, under the limit that no caller waits past."""
        try:
            async with asyncio.timeout(asked.limit) as scope:
                self._scopes[scope] = None
                try:
                    return await steps(slot, scope.when() or math.inf, reservation)
                finally:
                    self._leave(scope)
        except TimeoutError as error:
            raise self._out_of_time(slot, asked.limit) from error

    async def _steps(self, slot: Slot, deadline: float, reservation: Reservation, asked: Asked) -> Answer:
        model = await slot.get()
        asked.check(model.info)
        loop = asyncio.get_running_loop()
        how = prompt_of(model.info, asked.input_type), asked.input_type, asked.side
        kind = (*how, asked.truncate, slot.bits.changes)

        async def encode(items: list[Item]) -> list[Encoded]:
            began = loop.time()
            encoded = await self._tokenizing.encode(model, items, *how)
            self._observer.tokenized(slot.config.name, loop.time() - began)
            if not asked.truncate:
                refuse_truncated(encoded, model.info)
            return encoded

        async def run(encoded: list[Encoded], flight: Flight) -> Answer:
            reservation.taken_up(len(encoded))
            return await self._run(slot.config.name, model.info, encoded, flight, asked, deadline)

        flight = Flight(asked.tenant, asked.priority)
        return await self._sharing.embed(model.info, kind, asked.items, flight, encode, run)

    async def _run(
        self, name: str, info: ModelInfo, encoded: list[Encoded], flight: Flight, asked: Asked, deadline: float
    ) -> Answer:
        pending, work = self._submit(name, info, encoded, flight, asked, deadline)
        try:
            return await pending.future
        except asyncio.CancelledError:
            self._core.cancel(work)
            raise

    def _reserve(self, model: str, asked: Asked) -> None:
        if self._since is not None and not asked.is_accepted:
            self._since.refused += 1
            raise ShuttingDown("the server is shutting down", self._core.retry_after())
        if not LOWEST <= asked.priority <= CRITICAL:
            raise InvalidRequest(f"priority is {asked.priority}: it must be 0 to 255", "priority")
        if not asked.items:
            raise InvalidRequest("there is nothing to embed", "input")
        if asked.limit <= 0:
            raise TooLate("the deadline had passed before the request came")
        if asked.priority <= LOW and self._watch.refuses_low(model):
            raise QueueFull("LOW work is refused while the service is in a critical state", self._core.retry_after())
        now = asyncio.get_running_loop().time()
        raise_refused(model, self._core.reserve(model, len(asked.items), now, tenant=asked.tenant))

    def _submit(
        self, name: str, info: ModelInfo, encoded: list[Encoded], flight: Flight, asked: Asked, deadline: float
    ) -> tuple[Pending, Work]:
        loop = asyncio.get_running_loop()
        now = loop.time()
        pending = Pending(loop.create_future(), info, encoded, now, flight)
        costs = [len(item.token_ids) for item in encoded]
        work = self._core.submit(
            name, encoded, costs, pending, now,
            priority=asked.priority, tenant=asked.tenant, deadline=deadline,
            within=deadline if asked.is_stated else math.inf, reserved=True,
        )  # fmt: skip
        if isinstance(work, Refusal):
            raise refused(name, work)
        self._dispatcher.kick()
        return pending, work

    def _leave(self, scope: asyncio.Timeout) -> None:
        self._scopes.pop(scope, None)
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

    async def _close(self, patience: float) -> int:
        """Give back everything, waiting at most `patience` seconds; returns how many batches never ended."""
        stuck = await self._dispatcher.close(max(0.0, patience))
        await self._tokenizing.close()
        for slot in self._slots.values():
            await slot.close()
        self._workers.close()
        return stuck

    def _model(self, name: str, device: str) -> Model:
        model = self._slots[name].model
        if model is None:
            raise AssertionError(f"This is a bug: a batch was formed for {name!r}, which is not loaded")
        return copy_on(model, device)

    def _batching_of(self, name: str) -> Batching:
        """The values of a model, as they are now."""
        return self.settings.for_model(name)

    def _model_ready(self, name: str, model: Model) -> None:
        self._core.model_ready(name, *model.info.devices, padded=model.info.padded)
        self._observer.loaded(name)

    def _batch_ended(self, record: BatchRecord) -> None:
        self._sizes[record.size] += 1
        self._busy[record.device] += record.busy_seconds
        if record.failed < record.size:
            self._watch.succeeded(record.model, asyncio.get_running_loop().time())
        self._observer.batch(record)
