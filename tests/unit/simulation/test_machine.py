"""The engine's public API under any order of calls: hypothesis looks for the shortest one that breaks it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from embedfleet.api import Batching, BatchingSettings
from embedfleet_server.engine import Answer
from embedfleet_server.engine.errors import EngineError, InvalidRequest, ShuttingDown
from tests.support.simulation import SimulatedWorkers, config, engine, tokens_of, vector_of
from tests.support.virtual_time import VirtualLoop

NAMES = ["semantic", "code", "later"]
names = st.sampled_from(NAMES)
texts = st.lists(st.sampled_from(["a", "a b", "c d e", "f " * 20]), min_size=0, max_size=6)


class EngineMachine(RuleBasedStateMachine):
    """Callers, operators and the clock take turns; a dictionary of what was asked is the model."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.unhandled: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.unhandled.append(context))
        self.workers = SimulatedWorkers(load_seconds=0.5)
        self.asked: dict[asyncio.Task[Answer], list[str]] = {}
        self.stopping: list[asyncio.Task[Any]] = []
        self.places = 12

    @initialize()
    def start(self) -> None:
        """Two eager models on two devices, and a lazy one."""
        self.engine = engine(
            Batching(max_queued_requests=self.places, max_batch_size=4, item_timeout_seconds=5),
            config("semantic"), config("code", device="sim:1"), config("later", lazy=True, required=False),
            workers=self.workers,
        )  # fmt: skip
        self._run(self.engine.start())

    @rule(
        name=names,
        items=texts,
        priority=st.integers(-1, 256),
        tenant=st.sampled_from("ab"),
        within=st.sampled_from([None, None, -1.0, 0.02, 1.0]),
    )
    def embed(self, name: str, items: list[str], priority: int, tenant: str, within: float | None) -> None:
        """Somebody asks."""
        call = self.engine.embed(name, items, priority=priority, tenant=tenant, within=within)
        self.asked[self.loop.create_task(call)] = items
        self._pass(0.0)

    @rule(seconds=st.sampled_from([0.0, 0.005, 0.05, 1.0, 10.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self._pass(seconds)

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """A caller goes away."""
        data.draw(st.sampled_from(list(self.asked))).cancel()
        self._pass(0.0)

    @rule(name=st.none() | names, paused=st.booleans())
    def pause(self, name: str | None, paused: bool) -> None:
        """An operator pauses or resumes."""
        self._do(lambda: self.engine.pause(name, paused=paused))

    @rule(
        size=st.integers(1, 8), places=st.integers(1, 20), permits=st.integers(1, 3), enabled=st.booleans(),
        idle=st.booleans(),
    )  # fmt: skip
    def apply(self, size: int, places: int, permits: int, enabled: bool, idle: bool) -> None:
        """The settings file was edited."""
        self.places = places
        batching = Batching(
            max_batch_size=size, max_queued_requests=places, max_concurrent_batches=permits, enabled=enabled,
            dispatch_when_idle=idle, item_timeout_seconds=5,
        )  # fmt: skip
        self._do(lambda: self.engine.apply(BatchingSettings(batching=batching)))

    @rule(patience=st.sampled_from([0.0, 0.5, 60.0]))
    def stop(self, patience: float) -> None:
        """SIGTERM, perhaps once more."""
        self.stopping.append(self.loop.create_task(self.engine.stop(patience)))
        self._pass(0.0)

    @invariant()
    def counts_add_up(self) -> None:
        """At every instant."""
        if hasattr(self, "engine"):
            assert not self.unhandled
            s = self.engine.stats()
            assert s.submitted == s.completed + s.failed + s.cancelled + s.waiting + s.running
            assert s.active_batches <= 3
            assert self.engine.total_queue_depth == sum(self.engine.queue_depth(name) for name in NAMES) <= 20
            assert self.engine.is_running == (not self.stopping)

    @invariant()
    def answers_are_their_texts(self) -> None:
        """What is answered is right, what is refused is refused with one of the engine's errors."""
        for task in [task for task in self.asked if task.done()]:
            items = self.asked.pop(task)
            error = None if task.cancelled() else task.exception()
            assert error is None or isinstance(error, EngineError)
            assert items or task.cancelled() or isinstance(error, InvalidRequest | ShuttingDown)
            if not task.cancelled() and error is None:
                np.testing.assert_array_equal(task.result().rows, np.stack([vector_of(tokens_of(i)) for i in items]))

    def teardown(self) -> None:
        """At the end all stops, everyone was told, and nothing is left."""
        try:
            if hasattr(self, "engine"):
                self._end()
        finally:
            self.loop.close()

    def _end(self) -> None:
        self.stop(60.0)
        self._pass(300.0)
        assert all(task.done() for task in (*self.asked, *self.stopping))
        self.answers_are_their_texts()
        with pytest.raises(ShuttingDown):
            self._run(self.engine.embed("semantic", ["late"]))
        s = self.engine.stats()
        assert s.waiting == s.running == s.active_batches == self.engine.total_queue_depth == 0
        assert not asyncio.all_tasks(self.loop)
        assert self.workers.closed

    def _do(self, step: Callable[[], None]) -> None:
        """Call from within the loop."""
        self.loop.call_soon(step)
        self._pass(0.0)

    def _pass(self, seconds: float) -> None:
        """Let the loop run for so long; no time at all is a few of its turns."""
        self._run(asyncio.sleep(seconds) if seconds else _turns(3))

    def _run(self, step: Coroutine[Any, Any, Any]) -> None:
        self.loop.run_until_complete(step)


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.requirement("B10", "B14", "B16")
class TestEngine(EngineMachine.TestCase):  # type: ignore[misc, valid-type]  # made by hypothesis
    """Two hundred runs of forty steps."""

    settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
