"""Runs one plan: the real engine, its core and driver, on a virtual clock over simulated devices.

The world remembers what it did and saw (`World.log`), and tells `invariants.Watch` of each event as it happens.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from embedfleet_server.engine.copies import joined
from embedfleet_server.engine.engine import Engine
from embedfleet_server.engine.errors import EngineError, ModelLoadFailed
from embedfleet_server.engine.faults import OutOfMemory, TransientError
from embedfleet_server.engine.forwards import Computed
from embedfleet_server.engine.protocols import Encoded, Item, Loader, Model, ModelInfo, Rows, Side, Token
from embedfleet_server.engine.report import DrainReport
from embedfleet_server.engine.slots import ModelConfig
from tests.support.fake_model import given_ids
from tests.support.virtual_time import VirtualLoop
from tests.unit.simulation.invariants import Broken, Watch
from tests.unit.simulation.plan import (
    BLIP,
    FEW,
    FIRST_IDENTITY,
    HANG,
    MANY,
    NAN,
    OBJECT,
    POISON,
    QUERY,
    SHAPE,
    Change,
    ModelPlan,
    Plan,
    Request,
)
from tests.unit.simulation.truth import DIMENSIONS, Truth, computed, identity_of, row_of

FOR_EVER = 1e9
T = TypeVar("T")
_LAST_TURNS = 10
_FILLING = FIRST_IDENTITY - 1
"""The token of a word that is no number, of which the self-test is made; the vocabulary ends below it."""
_PASSING = (TransientError, ConnectionResetError, TimeoutError)
_MEMORY = (OutOfMemory, MemoryError)


class WatchedLoop(VirtualLoop):
    """Calls `on_step` after each turn of the loop, and `on_quiet` before each jump of the clock, with its aim."""

    def __init__(self) -> None:
        super().__init__()
        self.on_step: Callable[[], None] = lambda: None
        self.on_quiet: Callable[[float], None] = lambda until: None

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:
            until = min((timer.when() for timer in self._scheduled if not timer.cancelled()), default=self.time())
            if until > self.time():
                self.on_quiet(until)
        super()._run_once()  # type: ignore[misc]  # one turn of asyncio's own loop
        self.on_step()

    def timers_but(self, own: Sequence[asyncio.TimerHandle]) -> int:
        """Timers still set, beside one's own."""
        known = set(map(id, own))
        return sum(not handle.cancelled() and id(handle) not in known for handle in self._scheduled)

    _ready: Sequence[asyncio.Handle]
    _scheduled: Sequence[asyncio.TimerHandle]


@dataclass
class SimulatedModel:
    """Words that are numbers are tokens; all other words are filling."""

    plan: ModelPlan
    device: str
    world: "World"

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(
            self.plan.name, "Dense", DIMENSIONS, DIMENSIONS, 512, _FILLING, "f" * 64, "float32", self.device, None,
            (), self.plan.padded, prompts={"query": f"{QUERY} "},
        )  # fmt: skip

    def encode(
        self, items: Sequence[Item], prompt: str, input_type: str | None = None, side: Side | None = None
    ) -> list[Encoded]:
        return [Encoded(_tokens(prompt + item) if isinstance(item, str) else given_ids(item)) for item in items]

    def tokenize(self, texts: Sequence[str], *, special: bool) -> list[list[Token]]:
        raise AssertionError("no simulation asks for tokens")

    def decode(self, ids: Sequence[Sequence[int]], *, special: bool) -> list[str]:
        raise AssertionError("no simulation asks for texts")

    def forward(self, batch: Sequence[Encoded]) -> Rows:
        raise AssertionError("the workers compute")

    def peak_mib(self) -> float | None:
        return None

    def close(self) -> None:
        self.world.open_models -= 1


class World:
    """The simulated workers, and the callers of the engine."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.loop = WatchedLoop()
        self.log: list[tuple[object, ...]] = []
        self.open_models = 0
        self.closed = False
        self._failures_left = {model.name: model.load_failures for model in plan.models}
        self._blips: dict[int, int] = {}
        self._faults = 0
        self._devices = {device: asyncio.Lock() for model in plan.models for device in model.devices}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._timers: list[asyncio.TimerHandle] = []
        configs = {model.name: ModelConfig(model.name, self._loader(model), model.lazy) for model in plan.models}
        self.engine = Engine("m0", configs, plan.settings, workers=self, warm_up_seconds=plan.warm_up)
        self.truth = Truth(plan, self.loop.time)
        self.watch = Watch(self.truth, self.engine)

    # The engine's workers.

    async def load(self, loader: Loader) -> Model:
        plan = loader.plan  # type: ignore[attr-defined]  # the loaders of this world carry it
        self.watch.load_starts(plan)
        try:
            await asyncio.sleep(plan.load_seconds)
            self._note("load", plan.name)
            return loader()
        finally:
            self.watch.load_ended(plan)

    async def encode(
        self,
        model: Model,
        items: Sequence[Item],
        prompt: str,
        input_type: str | None = None,
        side: Side | None = None,
    ) -> list[Encoded]:
        await asyncio.sleep(self.plan.encode_seconds)
        encoded = model.encode(items, prompt, input_type, side)
        self.truth.encoded([item.token_ids for item in encoded])
        return encoded

    async def aside(self, call: Callable[[], T]) -> T:
        return call()

    async def forward(self, model: Model, batch: Sequence[Encoded]) -> Computed:
        return Computed(await self._rows(model, batch), self.loop.time())

    async def _rows(self, model: Model, batch: Sequence[Encoded]) -> Rows:
        assert isinstance(model, SimulatedModel)
        texts = [item.token_ids for item in batch]
        if identity_of(texts[0]) is None:
            is_known = _FILLING in texts[0]
            return await (self._self_test(model, texts) if is_known else self._warm_up(model, texts))
        self._note("forward", model.plan.name, model.device, *map(identity_of, texts))
        self.watch.forward_starts(model.plan, model.device, texts)
        try:
            async with self._devices[model.device]:
                self.watch.device_begins(model.device, texts)
                await asyncio.sleep(self._seconds(model, texts))
                return self._compute(model.plan, model.device, texts)
        finally:
            self.truth.forward_ended(model.plan, model.device, texts)

    def close(self) -> None:
        self.closed = True

    # What the device does.

    async def _self_test(self, model: SimulatedModel, texts: Sequence[Sequence[int]]) -> Rows:
        async with self._aside(model):
            await asyncio.sleep(self._seconds(model, texts))
            if self._is_away(model.device):
                self.truth.load_failed(model.plan)
                raise TransientError("the device is away")
            return np.stack([row_of(text) for text in texts])

    @asynccontextmanager
    async def _aside(self, model: SimulatedModel) -> AsyncIterator[None]:
        """The device for what is no batch."""
        async with self._devices[model.device]:
            try:
                yield
            finally:
                self.watch.left_aside[model.device] = self.loop.time()

    async def _warm_up(self, model: SimulatedModel, texts: Sequence[Sequence[int]]) -> Rows:
        self._note("warm-up", model.plan.name, len(texts), len(texts[0]))
        self.watch.warm_up_starts(model.plan, model.device, texts)
        async with self._aside(model):
            await asyncio.sleep(self._seconds(model, texts))
            if self._is_away(model.device):
                raise TransientError("the device is away")
            if computed(model.plan, texts) > model.plan.room:
                self.truth.ran_out(model.plan, model.device, texts)
                raise _MEMORY[len(texts) % 2]("no room")
            return np.stack([row_of(text) for text in texts])

    def _seconds(self, model: SimulatedModel, texts: Sequence[Sequence[int]]) -> float:
        if any(HANG in text for text in texts):
            return FOR_EVER
        seconds = self.plan.start_seconds + self.plan.seconds_per_token * computed(model.plan, texts)
        return seconds * self.plan.paces.get(model.device, 1)

    def _compute(self, model: ModelPlan, device: str, texts: Sequence[Sequence[int]]) -> Rows:
        error = self._fault(model, device, texts)
        if error is not None:
            self._note("fault", model.name, type(error).__name__)
            self.truth.forward_failed(model, device, texts, error)
            raise error
        rows = np.stack([row_of(text) for text in texts])
        wrong = _wrong_rows(texts, rows)
        if wrong is not None:
            self._note("wrong rows", model.name, wrong.shape)
            self.truth.forward_failed(model, device, texts, RuntimeError())
            return wrong
        rows[[position for position, text in enumerate(texts) if NAN in text], 1] = np.nan
        self.truth.forward_passed(model, device, texts)
        return rows

    def _fault(self, model: ModelPlan, device: str, texts: Sequence[Sequence[int]]) -> Exception | None:
        self._faults += 1
        if self._is_away(device):
            return _PASSING[self._faults % 3]("the device is away")
        if computed(model, texts) > model.room:
            return _MEMORY[self._faults % 2]("no room")
        if self._blip(texts):
            return _PASSING[self._faults % 3]("the link is down")
        if any(POISON in text for text in texts):
            return RuntimeError("the device said no")
        return None

    def _is_away(self, device: str) -> bool:
        now = self.loop.time()
        return any(away.device == device and away.begin <= now < away.end for away in self.plan.away)

    def _blip(self, texts: Sequence[Sequence[int]]) -> bool:
        for text in texts:
            identity = identity_of(text)
            if BLIP in text and identity is not None and self._blips.setdefault(identity, self.plan.blips):
                self._blips[identity] -= 1
                return True
        return False

    def _loader(self, plan: ModelPlan) -> Loader:
        def load() -> Model:
            if self._failures_left[plan.name]:
                self._failures_left[plan.name] -= 1
                self.truth.load_failed(plan)
                raise ModelLoadFailed(plan.name, "the disk was full")
            self.open_models += len(plan.devices)
            return joined([SimulatedModel(plan, device, self) for device in plan.devices])

        load.plan = plan  # type: ignore[attr-defined]
        return load

    # What callers do.

    async def live(self) -> None:
        """From start to stop, and a little after."""
        await self.engine.start()
        for request in self.plan.requests:
            self._timers.append(self.loop.call_at(request.at, self._send, request))
        for change in self.plan.changes:
            self._timers.append(self.loop.call_at(change.at, self._change, change))
        await asyncio.sleep(self.plan.stop_at)
        self.truth.stop_begins()
        others = [self.loop.create_task(self.engine.stop(self.plan.patience)) for _ in range(self.plan.stops - 1)]
        report = await self.engine.stop(self.plan.patience)
        await asyncio.gather(*others)
        self._note("stopped", report)
        self._after_stop(report)
        last = max([self.loop.time(), *(request.at + 1.0 for request in self.plan.requests)])
        await asyncio.sleep(last - self.loop.time())
        self.watch.at_end()

    def _after_stop(self, report: DrainReport) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task(), *self._tasks.values()}
        self.watch.after_stop(report, len(tasks), self.loop.timers_but(self._timers))
        if not self.closed or self.open_models:
            raise Broken(f"after stop: workers closed: {self.closed}, models open: {self.open_models}")

    def _send(self, request: Request) -> None:
        task = self._tasks[request.number] = self.loop.create_task(self._ask(request))
        if request.cancel_after is not None:
            self._timers.append(self.loop.call_later(request.cancel_after, self._cancel, request.number, task))

    def _cancel(self, number: int, task: "asyncio.Task[None]") -> None:
        if task.cancel():
            self.truth.cancelled.add(number)

    async def _ask(self, request: Request) -> None:
        items: list[Item] = [_words(text) if request.as_words else list(text) for text in request.texts]
        self.watch.asked(request)
        try:
            answer = await self.engine.embed(
                request.model, items, input_type=request.input_type, priority=request.priority, tenant=request.tenant,
                within=request.within,
            )  # fmt: skip
        except (EngineError, asyncio.CancelledError) as error:
            self._note("error", request.number, type(error).__name__, str(error))
            self.watch.refused(request, error)
        else:
            self._note("answer", request.number, sorted(answer.errors), answer.rows.tolist(), answer.queue_seconds)
            self.watch.answered(request, answer)

    def _change(self, change: Change) -> None:
        self._note("change", change.at)
        self.watch.step()
        if change.settings is not None:
            self.engine.apply(change.settings)
        else:
            self.engine.pause(change.model, paused=change.paused)
        self.truth.changed(change)
        self.watch.changed()

    def _note(self, *event: object) -> None:
        self.log.append((self.loop.time(), *event))


def live(world: World) -> None:
    """Run a world to its end; raises `Broken` when something that must hold did not."""
    logger = logging.getLogger("embedfleet.engine")
    logger.disabled = True
    world.loop.on_step, world.loop.on_quiet = world.watch.step, world.watch.quiet
    world.loop.set_exception_handler(lambda _, context: world.watch.need(None, f"unhandled: {context}"))
    try:
        world.loop.run_until_complete(world.live())
    finally:
        world.loop.on_step, world.loop.on_quiet = lambda: None, lambda until: None
        _put_down(world.loop)
        logger.disabled = False


def _put_down(loop: WatchedLoop) -> None:
    """End what a broken invariant left in the middle of its work."""
    for task in asyncio.all_tasks(loop):
        task.cancel()
    for _ in range(_LAST_TURNS):
        loop.call_soon(loop.stop)
        loop.run_forever()
    loop.set_exception_handler(lambda *_: None)
    loop.close()


def _tokens(text: str) -> list[int]:
    return [int(word) if word.isdigit() else _FILLING for word in text.split()]


def _words(text: Sequence[int]) -> str:
    return " ".join(map(str, text))


def _wrong_rows(texts: Sequence[Sequence[int]], rows: Rows) -> Rows | None:
    """What a wrong model gives when a text asks for it."""
    faults = {token for text in texts for token in text}
    if FEW in faults:
        return rows[:-1]
    if MANY in faults:
        return np.concatenate([rows, rows])
    if SHAPE in faults:
        return rows[:, :-1]
    return rows.astype(object) if OBJECT in faults else None
