"""Runs pipelines: the tasks, timers and turns around `core`. All model work goes through the engine (`steps`)."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from embedfleet.api.pipelines import INPUT, KnownModel, Pipeline, Step, check
from embedfleet_server.batching.types import NORMAL
from embedfleet_server.engine.engine import Engine
from embedfleet_server.engine.errand import Errand
from embedfleet_server.engine.errors import DeadlineExceeded, EngineError, InvalidRequest, PipelineNotFound
from embedfleet_server.engine.protocols import ModelInfo
from embedfleet_server.pipelines.core import Graph, Line, Way
from embedfleet_server.pipelines.errors import StepFailed
from embedfleet_server.pipelines.results import Failure, InputFailed, Result
from embedfleet_server.pipelines.steps import Aside, Asking
from embedfleet_server.pipelines.values import Texts, Value

_log = logging.getLogger("embedfleet.pipelines")
AHEAD = 4
"""Inputs begun ahead of the one whose result is taken next, as a multiple of those under way: memory stays bounded."""


async def _here(work: Callable[[], object]) -> object:
    return work()


class Pipelines:
    """The pipelines of a service, over its engine."""

    def __init__(
        self,
        engine: Engine,
        pipelines: Sequence[Pipeline] = (),
        models: Mapping[str, KnownModel] | None = None,
        aside: Aside = _here,
    ) -> None:
        """`models` is what the manifest tells of them; `aside` computes what would hold up the event loop."""
        told = models or {}
        self._runners = {one.name: Runner(engine, one, told, aside) for one in pipelines}

    @property
    def all(self) -> list["Runner"]:
        """Every pipeline, in the order of the manifest."""
        return list(self._runners.values())

    def get(self, name: str) -> "Runner":
        """The pipeline of that name; `PipelineNotFound` lists those there are."""
        if name not in self._runners:
            raise PipelineNotFound(name, tuple(self._runners))
        return self._runners[name]


class Runner:
    """One pipeline, and the line in which inputs of all its requests stand."""

    def __init__(self, engine: Engine, pipeline: Pipeline, models: Mapping[str, KnownModel], aside: Aside) -> None:
        self.pipeline = pipeline
        self.engine, self.aside = engine, aside
        self.graph = Graph.of(pipeline)
        self.steps: Mapping[str, Step] = {step.name: step for step in pipeline.steps}
        self._told = models
        self._line = Line(pipeline.parallel_executions)
        self._turns: dict[int, asyncio.Future[None]] = {}
        self._names = [status.name for status in engine.models()]
        self._counting = next(iter(pipeline.models), self._names[0])
        """The model in whose bound the inputs of a request are counted when it comes."""
        self._checked: tuple[list[ModelInfo | None], list[str]] | None = None

    def problems(self) -> list[str]:
        """What keeps it from running, as far as is known by now: of models that are loaded, all."""
        infos = [self.engine.info(name) for name in self._names]
        if self._checked is None or self._checked[0] != infos:
            models = {name: self._known(name, info) for name, info in zip(self._names, infos, strict=True)}
            self._checked = infos, [str(problem) for problem in check(self.pipeline, models)]
        return self._checked[1]

    @property
    def figures(self) -> dict[str, int]:
        """Inputs under way, and those that wait for their turn."""
        return {"under_way": self._line.under_way, "waiting": self._line.waiting}

    @asynccontextmanager
    async def run(
        self,
        inputs: Sequence[Texts | Failure],
        *,
        priority: int = NORMAL,
        tenant: str = "",
        within: float | None = None,
    ) -> AsyncGenerator[AsyncIterator[Result]]:
        """The results of `inputs` in their order, while the block lasts; leaving it cancels what is under way.

        A `Failure` in place of an input is its result. Every input holds a place in the queue's bound until it takes
        up those of its own texts. Raises what concerns the request as a whole: `InvalidRequest` where the pipeline
        does not fit its models, `QueueFull`, `ShuttingDown`, `DeadlineExceeded`, `Stopped`.
        """
        if problems := self.problems():
            raise InvalidRequest("; ".join(problems), "pipeline")
        sound = sum(isinstance(one, Texts) for one in inputs)
        if not sound:
            yield _told(inputs)
            return
        async with self.engine.errand(self._counting, sound, priority=priority, tenant=tenant, within=within) as errand:
            if isinstance(lone := inputs[0], Texts) and len(inputs) == 1:
                yield _alone(self, lone, errand)
                return
            run = _Run(self, inputs, errand)
            try:
                yield run.results()
            finally:
                await run.stop()

    def time_of_one(self) -> float:
        """When the time of an input that is next in its request's line now is up, on the loop's clock."""
        return asyncio.get_running_loop().time() + self.engine.settings.batching.item_timeout_seconds

    async def enter(self, priority: int, until: float) -> bool:
        """Wait for one's turn, and tell whether it came in time; whoever gets it must `leave`."""
        if self._line.walk_in():
            return True
        try:
            async with asyncio.timeout_at(until):
                await self._turn(priority)
        except TimeoutError:
            return False
        return True

    async def _turn(self, priority: int) -> None:
        loop = asyncio.get_running_loop()
        number = self._line.come(loop.time(), priority)
        turn = self._turns[number] = loop.create_future()
        self._call()
        try:
            await turn
        except asyncio.CancelledError:
            if not self._line.give_up(number):
                self.leave()
            raise
        finally:
            del self._turns[number]

    def leave(self) -> None:
        """An input has ended."""
        self._line.leave()
        self._call()

    def _call(self) -> None:
        for number in self._line.next():
            turn = self._turns[number]
            if not turn.done():  # else it was cancelled at this moment, and leaves by itself
                turn.set_result(None)

    def _known(self, name: str, info: ModelInfo | None) -> KnownModel:
        return self._told.get(name, KnownModel()) if info is None else known_of(info)


def known_of(info: ModelInfo) -> KnownModel:
    """What a loaded model tells."""
    labels = info.native_dimensions if info.task == "Rerank" else None
    return KnownModel(info.task, info.dimensions, labels)


class _Run:
    """One request."""

    def __init__(self, runner: Runner, inputs: Sequence[Texts | Failure], errand: Errand) -> None:
        self._runner, self._inputs, self._errand = runner, inputs, errand
        self._loop = asyncio.get_running_loop()
        self._ended: dict[int, asyncio.Future[Result]] = {}
        self._taken = 0
        self._moved = asyncio.Event()
        self._tasks = {self._loop.create_task(self._feed())}

    async def results(self) -> AsyncIterator[Result]:
        """Each input's result in its turn."""
        for index in range(len(self._inputs)):
            result = await self._end(index)
            del self._ended[index]
            self._taken += 1
            self._moved.set()
            yield result

    async def stop(self) -> None:
        """Cancel what is under way, and wait until it is gone."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _end(self, index: int) -> asyncio.Future[Result]:
        return self._ended.setdefault(index, self._loop.create_future())

    async def _feed(self) -> None:
        """Begin one input after the other, each in its turn."""
        for index, given in enumerate(self._inputs):
            while index - self._taken >= AHEAD * self._runner.pipeline.parallel_executions:
                self._moved.clear()
                await self._moved.wait()
            until = self._runner.time_of_one()
            if isinstance(given, Failure):
                self._tell(Result(index, failure=given))
            elif await self._runner.enter(self._errand.priority, until):
                task = self._loop.create_task(self._one(index, given, until))
                self._tasks.add(task)
                task.add_done_callback(self._left)
            else:
                self._tell(Result(index, failure=_late(INPUT)))

    def _left(self, task: "asyncio.Task[None]") -> None:
        # Not in the task's own `finally`: one cancelled before its first step never gets there.
        self._tasks.discard(task)
        self._runner.leave()

    async def _one(self, index: int, given: Texts, until: float) -> None:
        self._tell(await _result(self._runner, self._errand, index, given, until))

    def _tell(self, result: Result) -> None:
        end = self._end(result.index)
        if not end.done():  # else nobody waits for it any more
            end.set_result(result)


async def _alone(runner: Runner, given: Texts, errand: Errand) -> AsyncIterator[Result]:
    """The result of a request's only input, which is run in the caller's own task: it needs none beside it."""
    until = runner.time_of_one()
    if not await runner.enter(errand.priority, until):
        yield Result(0, failure=_late(INPUT))
        return
    try:
        result = await _result(runner, errand, 0, given, until)
    finally:
        runner.leave()
    yield result


async def _result(runner: Runner, errand: Errand, index: int, given: Texts, until: float) -> Result:
    """What becomes of an input whose turn it is."""
    journey = _Journey(runner, Asking(runner.engine, runner.pipeline, errand, runner.aside, until), given)
    try:
        async with asyncio.timeout_at(until):
            return Result(index, await journey.outputs())
    except InputFailed as failed:
        return Result(index, failure=failed.failure)
    except TimeoutError:
        return Result(index, failure=_late(journey.at))
    except Exception as error:  # noqa: BLE001  # whatever it is, it is this input's alone, and nobody may wait for ever
        _log.error("pipeline %s, step %s failed unexpectedly", runner.pipeline.name, journey.at, exc_info=error)
        return Result(index, failure=Failure(journey.at, error))


class _Journey:
    """One input's way: the tasks around `core.Way`."""

    def __init__(self, runner: Runner, asking: Asking, given: Texts) -> None:
        self._steps, self._asking = runner.steps, asking
        self._outputs = runner.pipeline.outputs
        self._way = Way(runner.graph)
        self._values: dict[str, Value] = {INPUT: given}
        self._running: dict[asyncio.Task[Value], str] = {}
        self.at = INPUT
        """The step that began last."""

    async def outputs(self) -> dict[str, Value]:
        """The values of the outputs; raises `InputFailed`."""
        ready = self._way.begin()
        try:
            while not self._way.is_over:
                ready = await self._next(ready)
        finally:
            await self._give_up()
        return {name: self._values[name] for name in self._outputs}

    async def _next(self, ready: list[str]) -> list[str]:
        """Begin what is ready, wait for the first to end; what is ready then. One alone needs no task."""
        if len(ready) == 1 and not self._running:
            return self._done(ready[0], await self._value(ready[0]))
        for name in ready:
            self._running[asyncio.create_task(self._value(name))] = name
        ended, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        # In the order of the graph, so that a run replays.
        names = sorted(ended, key=lambda task: list(self._steps).index(self._running[task]))
        return [name for task in names for name in self._done(self._running.pop(task), task.result())]

    async def _value(self, name: str) -> Value:
        self.at = name
        try:
            return await self._asking.value(self._steps[name], self._values)
        except (EngineError, StepFailed) as error:
            self._way.fail(name)
            raise InputFailed(name, error) from error

    def _done(self, name: str, value: Value) -> list[str]:
        self._values[name] = value
        for useless in self._way.useless(name):
            self._values.pop(useless, None)
        return self._way.done(name)

    async def _give_up(self) -> None:
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.gather(*self._running, return_exceptions=True)


def _late(step: str) -> Failure:
    return Failure(step, DeadlineExceeded("the input was not done within itemTimeoutSeconds"))


async def _told(inputs: Sequence[Texts | Failure]) -> AsyncIterator[Result]:
    for index, one in enumerate(inputs):
        assert isinstance(one, Failure)
        yield Result(index, failure=one)
