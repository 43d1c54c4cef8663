"""Pipelines over the real engine with simulated models, in virtual time."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from embedfleet.api import Batching, BatchingSettings
from embedfleet_server.batching.types import HIGH
from embedfleet_server.engine.engine import Engine
from embedfleet_server.engine.errors import (
    DeadlineExceeded,
    InvalidRequest,
    PipelineNotFound,
    QueueFull,
    ShuttingDown,
    Stopped,
    TooLarge,
)
from embedfleet_server.pipelines.driver import AHEAD, Pipelines, Runner
from embedfleet_server.pipelines.errors import StepFailed
from embedfleet_server.pipelines.results import Failure, Result
from embedfleet_server.pipelines.values import Texts
from tests.support import simulation
from tests.support.graphs import Plain, embed, pipeline, step
from tests.support.simulation import SimulatedWorkers, config, text, vector_of
from tests.support.virtual_time import run

pytestmark = pytest.mark.requirement("G1", "G2")
CUT = step("cut", chunk={"by": "Sentences", "size": 1})


def engine(workers: SimulatedWorkers | None = None, **batching: Any) -> Engine:
    """Two models on two devices, forwards of 10 ms and more."""
    models = (config("semantic"), config("other", device="sim:1"))
    return simulation.engine(Batching(sizing="Fixed", **batching), *models, workers=workers or SimulatedWorkers())


def runner(of: Engine, *steps: Plain, **more: Any) -> Runner:
    return Pipelines(of, [pipeline(*steps, **more)]).get("index")


async def results(of: Runner, inputs: Sequence[Texts | Failure], **how: Any) -> list[Result]:
    async with of.run(inputs, **how) as made:
        return [result async for result in made]


def given(count: int, words: int = 3) -> list[Texts]:
    return [Texts([text(words)]) for _ in range(count)]


def sentences(count: int) -> Texts:
    """A text of so many sentences, unlike any other."""
    return Texts([" ".join(f"{text(2)}." for _ in range(count))])


def test_values_are_those_of_the_models() -> None:
    """Each input's outputs by name, in the inputs' order: as the models alone would give them."""

    async def main() -> None:
        of = engine()
        await of.start()
        inputs = given(25)
        steps = [embed("one"), embed("two", model="other"), step("both", "one", "two", concatenate={})]
        made = await results(runner(of, *steps, outputs=["both", "one"]), inputs)
        assert [result.index for result in made] == list(range(25))
        for result, one in zip(made, inputs, strict=True):
            own = vector_of([sum(map(ord, word)) for word in one.texts[0].split()])
            np.testing.assert_array_equal(result.values["one"], own[None, :])
            np.testing.assert_array_equal(result.values["both"], np.hstack([own, own])[None, :])
            assert list(result.values) == ["both", "one"]
        await of.stop(1.0)

    run(main())


def test_steps_with_no_path_between_them_run_at_once() -> None:
    """Two models of one text take as long as one; a step behind another takes as long as both."""

    async def took(*steps: Plain, **more: Any) -> float:
        of = engine()
        await of.start()
        loop = asyncio.get_running_loop()
        await results(runner(of, embed("warm")), given(1))
        began = loop.time()
        await results(runner(of, *steps, **more), given(1))
        seconds = loop.time() - began
        await of.stop(1.0)
        return seconds

    one = run(took(embed("one")))
    assert run(took(embed("one"), embed("two", model="other"), outputs=["one", "two"])) == pytest.approx(one)


def test_inputs_of_different_requests_share_batches() -> None:
    """Four requests of ten inputs each, at once: the forwards hold inputs of several."""

    async def main() -> None:
        workers = SimulatedWorkers()
        of = engine(workers, max_concurrent_batches=1)
        await of.start()
        one = runner(of, embed("one"), parallelExecutions=40)
        await asyncio.gather(*(results(one, given(10)) for _ in range(4)))
        sizes = [len(batch) for batch in workers.batches[2:]]
        assert sum(sizes) == 40
        assert max(sizes) > 10
        await of.stop(1.0)

    run(main())


def test_at_most_so_many_inputs_are_under_way() -> None:
    """Over all requests; and a request with a higher priority gets the next turn."""

    async def main() -> None:
        of = engine()
        await of.start()
        one = runner(of, embed("one"), parallelExecutions=3)
        most, ended = 0, []

        async def watched(name: str, count: int, **how: Any) -> None:
            nonlocal most
            async with one.run(given(count), **how) as made:
                async for _ in made:
                    most = max(most, one.figures["under_way"])
            ended.append(name)

        first = asyncio.create_task(watched("many", 30))
        await asyncio.sleep(0.015)
        await asyncio.gather(first, watched("urgent", 2, priority=HIGH))
        assert most == 3
        assert ended == ["urgent", "many"]
        assert one.figures == {"under_way": 0, "waiting": 0}
        await of.stop(1.0)

    run(main())


def test_one_failed_input_fails_alone() -> None:
    """It has its error with the step's name and what it was; the others have their outputs."""

    async def main() -> None:
        of = engine()
        await of.start()
        steps = [CUT, embed("dense", "cut"), step("few", "dense", quantize={"to": "Int8"})]
        inputs: list[Texts | Failure] = [sentences(3), sentences(1), Texts([" . "]), sentences(2)]
        inputs.insert(2, Failure("input", StepFailed("wrong_type", "is a number")))
        made = await results(runner(of, *steps, outputs=["few"]), inputs)
        told = [None if one.failure is None else (one.failure.step, str(one.failure.error)[:20]) for one in made]
        assert told[0] is None
        assert told[4] is None
        assert told[1] == ("few", "ranges need at least")
        assert told[2] == ("input", "is a number")
        await of.stop(1.0)

    run(main())


def test_what_nobody_foresaw_fails_one_input(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A bug in a step is that input's failure, with the step's name, and a traceback in the log; nobody hangs."""

    def broken(rows: Any) -> Any:
        if len(rows) > 1:
            raise ZeroDivisionError("a bug")
        return rows

    monkeypatch.setattr("embedfleet_server.pipelines.operations.normalized", broken)

    async def main() -> None:
        of = engine()
        await of.start()
        one = runner(of, CUT, embed("dense", "cut"), step("unit", "dense", normalize={}))
        bad, good = await results(one, [sentences(2), sentences(1)])
        assert good.failure is None
        assert bad.failure is not None
        assert (bad.failure.step, type(bad.failure.error)) == ("unit", ZeroDivisionError)
        await of.stop(1.0)

    run(main())
    assert "a bug" in caplog.text


def test_expansion_counts_against_admission() -> None:
    """More chunks than could ever fit fail at the step; more than fit now wait for room, and none is lost."""

    async def main() -> None:
        of = engine(max_queued_requests=20)
        await of.start()
        one = runner(of, CUT, embed("dense", "cut"))
        made = await results(one, [sentences(21), sentences(20)])
        failure = made[0].failure
        assert failure is not None
        assert (failure.step, type(failure.error)) == ("dense", TooLarge)
        assert len(made[1].values["dense"]) == 20  # type: ignore[arg-type]
        many = await results(one, [sentences(8) for _ in range(12)])
        assert [result.failure for result in many] == [None] * 12
        assert of.total_queue_depth == 0
        await of.stop(1.0)

    run(main())


def test_a_request_that_does_not_fit_is_refused_whole() -> None:
    """Its inputs hold places from the start, so that a full queue takes no more of them; they are given back."""

    async def main() -> None:
        of = engine(max_queued_requests=10)
        await of.start()
        await of.embed("semantic", [text(1)])
        of.pause()
        one = runner(of, embed("dense"), parallelExecutions=1)
        waiting = asyncio.create_task(results(one, given(8)))
        await asyncio.sleep(0.1)
        assert of.total_queue_depth == 8
        with pytest.raises(QueueFull):
            await results(one, given(3))
        assert of.total_queue_depth == 8
        of.pause(paused=False)
        assert [result.failure for result in await waiting] == [None] * 8
        assert of.total_queue_depth == 0
        await of.stop(1.0)

    run(main())


@pytest.mark.parametrize("count", [1, 8])
def test_cancel_reaches_every_step(count: int) -> None:
    """Who goes away leaves nothing behind: no input waits, none is under way, no task is left."""

    async def main() -> None:
        of = engine()
        await of.start()
        await of.embed("semantic", [text(1)])
        of.pause()
        tasks = asyncio.all_tasks()
        one = runner(of, embed("one"), embed("two", model="other"), outputs=["one", "two"], parallelExecutions=3)
        gone = asyncio.create_task(results(one, given(count)))
        await asyncio.sleep(0.1)
        assert of.total_queue_depth > 0
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert of.total_queue_depth == 0
        assert one.figures == {"under_way": 0, "waiting": 0}
        assert asyncio.all_tasks() == tasks
        of.pause(paused=False)
        assert [result.failure for result in await results(one, given(2))] == [None, None]
        await of.stop(1.0)

    run(main())


@pytest.mark.parametrize("count", [1, 5])
def test_a_deadline_ends_the_request(count: int) -> None:
    """The caller's own limit holds for all of it: `DeadlineExceeded`, and nothing is left under way."""

    async def main() -> None:
        of = engine()
        await of.start()
        await of.embed("semantic", [text(1)])
        of.pause()
        one = runner(of, embed("one"))
        began = asyncio.get_running_loop().time()
        with pytest.raises(DeadlineExceeded):
            await results(one, given(count), within=2.0)
        assert asyncio.get_running_loop().time() - began == pytest.approx(2.0)
        assert of.total_queue_depth == 0
        of.pause(paused=False)
        await of.stop(1.0)

    run(main())


def test_no_input_takes_longer_than_item_timeout() -> None:
    """Where no limit is stated each input has itemTimeoutSeconds, and its error names the step it was at."""

    async def main() -> None:
        of = engine(item_timeout_seconds=5)
        await of.start()
        await of.embed("semantic", [text(1)])
        of.pause("other")
        one = runner(of, CUT, embed("one", "cut"), embed("two", "cut", model="other"), outputs=["one", "two"])
        (made,) = await results(one, [sentences(2)])
        assert made.failure is not None
        assert (made.failure.step, type(made.failure.error)) == ("two", DeadlineExceeded)
        assert of.total_queue_depth == 0
        of.pause(paused=False)
        await of.stop(1.0)

    run(main())


def test_a_drain_lets_accepted_requests_finish() -> None:
    """Inputs that have not begun, and steps that have not, are answered all the same; new requests are refused."""

    async def main() -> None:
        workers = SimulatedWorkers()
        of = engine(workers)
        await of.start()
        one = runner(of, CUT, embed("one", "cut"), embed("two", "cut", model="other"), outputs=["one", "two"])
        inputs = [sentences(2) for _ in range(30)]
        accepted = asyncio.create_task(results(one, inputs))
        await asyncio.sleep(0.005)
        stopping = asyncio.create_task(of.stop(30.0))
        await asyncio.sleep(0)
        with pytest.raises(ShuttingDown):
            await results(one, given(1))
        made = await accepted
        assert [result.failure for result in made] == [None] * 30
        report = await stopping
        assert (report.finished_requests, report.finished_inputs, report.failed) == (1, 30, 0)

    run(main())


@pytest.mark.parametrize("count", [1, 3])
def test_a_drain_out_of_time_stops_them(count: int) -> None:
    """Once its patience is over every request ends, with an error that says so."""

    async def main() -> None:
        of = engine()
        await of.start()
        await of.embed("semantic", [text(1)])
        of.pause()
        held = asyncio.create_task(results(runner(of, embed("one")), given(count)))
        await asyncio.sleep(0.01)
        await of.stop(2.0)
        (ended,) = await asyncio.gather(held, return_exceptions=True)
        if isinstance(ended, list):
            assert all(result.failure is not None and type(result.failure.error) is Stopped for result in ended)
        else:
            assert isinstance(ended, Stopped)

    run(main())


def test_a_lone_input_runs_in_its_callers_task() -> None:
    """A request of one input to one step makes no task beside its caller's: it costs little more than the model."""

    async def main() -> None:
        of = engine()
        await of.start()
        await of.embed("semantic", [text(1)])
        of.pause()
        before = asyncio.all_tasks()
        lone = asyncio.create_task(results(runner(of, embed("one")), given(1)))
        await asyncio.sleep(0.1)
        assert of.total_queue_depth == 1
        assert asyncio.all_tasks() == before | {lone}
        of.pause(paused=False)
        assert [result.failure for result in await lone] == [None]
        await of.stop(1.0)

    run(main())


def test_a_lone_input_waits_its_turn() -> None:
    """It stands in the line as others do: out of time there, it fails at `input`; who goes away leaves the line."""

    async def main() -> None:
        of = engine(item_timeout_seconds=50)
        await of.start()
        await of.embed("semantic", [text(1)])
        of.pause()
        one = runner(of, embed("one"), parallelExecutions=1)
        first = asyncio.create_task(results(one, given(1)))
        await asyncio.sleep(0.1)
        of.apply(BatchingSettings(generation=2, batching=Batching(sizing="Fixed", item_timeout_seconds=5)))
        of.pause()
        (late,) = await results(one, given(1))
        assert late.failure is not None
        assert (late.failure.step, type(late.failure.error)) == ("input", DeadlineExceeded)
        gone = asyncio.create_task(results(one, given(1)))
        await asyncio.sleep(0.1)
        assert one.figures == {"under_way": 1, "waiting": 1}
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert one.figures == {"under_way": 1, "waiting": 0}
        of.pause(paused=False)
        assert [result.failure for result in await first] == [None]
        assert one.figures == {"under_way": 0, "waiting": 0}
        await of.stop(1.0)

    run(main())


def test_a_slow_reader_holds_the_rest_back() -> None:
    """No more inputs begin than so many ahead of the one that is taken next: memory stays bounded."""

    async def main() -> None:
        workers = SimulatedWorkers()
        of = engine(workers)
        await of.start()
        one = runner(of, embed("one"), parallelExecutions=2)
        await results(one, given(1))
        before = len(workers.batches)
        async with one.run(given(100)) as made:
            await asyncio.sleep(60.0)
            assert sum(len(batch) for batch in workers.batches[before:]) == AHEAD * 2
            assert len([result async for result in made]) == 100
        await of.stop(1.0)

    run(main())


def test_what_does_not_fit_the_loaded_models_is_refused() -> None:
    """Once a model's task and length are known the pipeline's problems name pipeline, step and what must hold."""

    async def main() -> None:
        of = engine()
        one = runner(of, embed("one"), step("short", "one", truncate={"dimensions": 9}))
        assert one.problems() == []
        await of.start()
        await of.embed("semantic", [text(1)])
        words = "pipeline 'index', step 'short': truncate.dimensions is 9: it must be at most 4"
        assert one.problems()[0].startswith(words)
        with pytest.raises(InvalidRequest, match="step 'short'"):
            await results(one, given(1))
        with pytest.raises(PipelineNotFound, match="this service has: index"):
            Pipelines(of, [one.pipeline]).get("other")
        await of.stop(1.0)

    run(main())
