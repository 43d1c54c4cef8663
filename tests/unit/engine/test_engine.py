"""The driver over the real core, on a virtual clock and a simulated device: the way of a request, and shutdown."""

import asyncio

import numpy as np
import pytest

from embedfleet.api import Batching, ModelBatching
from embedfleet_server.engine.errors import (
    ModelNotFound,
    QueueFull,
    ShuttingDown,
    Stopped,
    TooLarge,
)
from tests.support.finishing import finish
from tests.support.simulation import (
    SimulatedWorkers,
    config,
    engine,
    text,
    texts,
    tokens_of,
    vector_of,
)
from tests.support.virtual_time import run


@pytest.mark.requirement("B9")
def test_each_caller_gets_its_own_rows_in_its_order() -> None:
    """Fifty requests of mixed lengths share batches; every row is the vector of its own text."""

    async def main() -> None:
        made = engine(Batching(max_batch_size=16))
        await made.start()
        requests = [[text(1 + (7 * r + i) % 40) for i in range(1 + r % 9)] for r in range(50)]
        answers = await asyncio.gather(*(made.embed("semantic", items) for items in requests))
        for items, answer in zip(requests, answers, strict=True):
            np.testing.assert_array_equal(answer.rows, np.stack([vector_of(tokens_of(item)) for item in items]))
            assert answer.tokens == [len(tokens_of(item)) for item in items]
        await finish(made)

    run(main())


@pytest.mark.requirement("B2")
def test_the_clock_sends_a_lone_request() -> None:
    """Without dispatchWhenIdle one text waits maxWaitMilliseconds, then the forward: 50 ms + 10 ms + its token."""

    async def main() -> None:
        workers = SimulatedWorkers()
        made = engine(Batching(dispatch_when_idle=False), workers=workers)
        await made.start()
        await made.embed("semantic", ["warm"])
        started = asyncio.get_running_loop().time()
        answer = await made.embed("semantic", ["one"])
        assert answer.queue_seconds == pytest.approx(0.050)
        assert asyncio.get_running_loop().time() - started == pytest.approx(0.050 + 0.0101)
        await finish(made)

    run(main())


@pytest.mark.requirement("B3")
def test_requests_of_one_turn_meet_and_later_ones_fill_the_next_batch() -> None:
    """Ten texts at once share one batch; those that come while it computes share the next."""

    async def main() -> None:
        workers = SimulatedWorkers()
        made = engine(workers=workers)
        await made.start()
        await made.embed("semantic", ["warm"])
        del workers.batches[:]
        first = [asyncio.create_task(made.embed("semantic", [f"t{i}"])) for i in range(10)]
        await asyncio.sleep(0.005)
        second = [asyncio.create_task(made.embed("semantic", [f"u{i}"])) for i in range(20)]
        await asyncio.gather(*first, *second)
        assert [len(batch) for batch in workers.batches] == [10, 20]
        await finish(made)

    run(main())


@pytest.mark.requirement("B6")
def test_one_device_computes_one_batch_and_permits_bound_all() -> None:
    """Twelve models over twelve devices and four permits: never more than four forwards at once, and all get served."""

    async def main() -> None:
        workers = SimulatedWorkers()
        names = [f"m{i}" for i in range(12)]
        made = engine(None, *(config(n, device=f"sim:{i}") for i, n in enumerate(names)), workers=workers)
        await made.start()
        await asyncio.gather(*(made.embed(name, ["x"]) for name in names))
        workers.most_running = 0
        await asyncio.gather(*(made.embed(name, ["x"] * 40) for name in names for _ in range(2)))
        assert workers.most_running == 4
        await finish(made)

    run(main())


@pytest.mark.requirement("B1")
def test_a_short_queue_does_not_wait_for_a_long_one() -> None:
    """900 inputs of one model wait; a text of another model on the same device leaves with the next slot."""

    async def main() -> None:
        workers = SimulatedWorkers()
        made = engine(None, config("semantic"), config("code"), workers=workers)
        await made.start()
        await asyncio.gather(made.embed("semantic", ["a"]), made.embed("code", ["b"]))
        flood = [asyncio.create_task(made.embed("semantic", ["x"] * 30)) for _ in range(30)]
        await asyncio.sleep(0.001)
        one = asyncio.create_task(made.embed("code", ["y"]))
        await asyncio.gather(*flood, one)
        assert (await one).queue_seconds <= 2 * (0.010 + 0.0032) + 0.001  # the batch that ran, and one more
        await finish(made)

    run(main())


@pytest.mark.requirement("B7")
def test_a_full_queue_refuses_at_once_and_whole() -> None:
    """1000 places: 990 taken, 20 more are refused with a delay, and what was accepted is all answered."""

    async def main() -> None:
        made = engine()
        await made.start()
        await made.embed("semantic", ["warm"])
        taken = asyncio.create_task(made.embed("semantic", texts(990, 20)))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull) as refused:
            await made.embed("semantic", ["x"] * 20)
        assert refused.value.retry_after > 0
        with pytest.raises(TooLarge):
            await made.embed("semantic", ["x"] * 1001)
        assert (await taken).rows.shape == (990, 4)
        await finish(made)

    run(main())


@pytest.mark.requirement("B7")
def test_a_models_own_bound_leaves_the_others_their_room() -> None:
    """One model may hold 5 inputs of the service's 1000."""

    async def main() -> None:
        made = engine(None, config("semantic"), config("code"), own={"code": ModelBatching(max_queued_requests=5)})
        await made.start()
        with pytest.raises(TooLarge):
            await made.embed("code", ["x"] * 6)
        assert (await made.embed("semantic", ["x"] * 6)).rows.shape == (6, 4)
        await finish(made)

    run(main())


@pytest.mark.requirement("B13")
def test_shutdown_finishes_what_was_accepted() -> None:
    """Fifty pending at shutdown: fifty answers; requests after it are refused at once."""

    async def main() -> None:
        made = engine(Batching(max_batch_size=4))
        await made.start()
        await made.embed("semantic", ["warm"])
        pending = [asyncio.create_task(made.embed("semantic", [f"t{i}"])) for i in range(50)]
        await asyncio.sleep(0.001)
        stopping = asyncio.create_task(made.stop(30.0))
        await asyncio.sleep(0.001)
        with pytest.raises(ShuttingDown):
            await made.embed("semantic", ["late"])
        report = await stopping
        assert len(await asyncio.gather(*pending)) == 50
        assert (report.finished_requests, report.finished_inputs, report.refused, report.failed) == (50, 50, 1, 0)
        assert not made.is_running

    run(main())


@pytest.mark.requirement("B13")
def test_past_the_limit_the_rest_get_a_clear_error() -> None:
    """A device that hangs: at the limit every caller is told, none waits on, and the report names the stuck batch."""

    async def main() -> None:
        made = engine(Batching(max_batch_size=2), workers=SimulatedWorkers())
        await made.start()
        await made.embed("semantic", ["warm"])
        made._workers.start_seconds = 1e6  # type: ignore[attr-defined]  # the simulated device now hangs
        pending = [asyncio.create_task(made.embed("semantic", ["x"])) for _ in range(6)]
        await asyncio.sleep(0.001)
        report = await made.stop(5.0)
        assert all(isinstance(e, Stopped) for e in await asyncio.gather(*pending, return_exceptions=True))
        assert (report.failed, report.stuck_batches) == (6, 1)

    run(main())


@pytest.mark.requirement("B14")
def test_after_shutdown_submit_raises_at_once() -> None:
    """A stopped engine says that it is shutting down, without a wait."""

    async def main() -> None:
        made = engine()
        await made.start()
        await made.stop(1.0)
        before = asyncio.get_running_loop().time()
        with pytest.raises(ShuttingDown):
            await made.embed("semantic", ["x"])
        assert asyncio.get_running_loop().time() == before

    run(main())


@pytest.mark.requirement("B16")
def test_depth_and_stats_are_true_while_work_waits() -> None:
    """queue_depth, total_queue_depth, is_running and stats at an instant with one batch running."""

    async def main() -> None:
        made = engine(Batching(max_batch_size=8), config("semantic"), config("code"))
        running = [made.is_running]
        await made.start()
        await asyncio.gather(made.embed("semantic", ["w"]), made.embed("code", ["w"]))
        tasks = [asyncio.create_task(made.embed(m, [text(1)])) for m in ["semantic"] * 20 + ["code"] * 5]
        await asyncio.sleep(0.005)
        assert [*running, made.is_running] == [False, True]
        assert (made.queue_depth("semantic"), made.queue_depth("code"), made.total_queue_depth) == (12, 5, 17)
        stats = made.stats()
        assert (stats.submitted, stats.completed, stats.running, stats.active_batches) == (27, 2, 8, 1)
        await asyncio.gather(*tasks)
        await finish(made)

    run(main())


def test_the_default_model_is_the_named_the_services_or_the_only_one() -> None:
    """defaultModel, else the one named like the service, else the only one, else an error that lists them."""
    assert engine(None, config("a"), config("b"), default_model="b").resolve(None) == "b"
    assert engine(None, config("a"), config("semantic")).resolve(None) == "semantic"
    assert engine(None, config("a")).resolve(None) == "a"
    with pytest.raises(ModelNotFound, match="must name a model; this service has: a, b"):
        engine(None, config("a"), config("b")).resolve(None)
    with pytest.raises(ModelNotFound, match="model 'z' does not exist"):
        engine(None, config("a")).resolve("z")


def test_the_prompt_of_the_input_type_is_put_before_each_text() -> None:
    """`query` prompts count as tokens and change the vector; no input type uses the model's default, here none."""

    async def main() -> None:
        made = engine()
        await made.start()
        query = await made.embed("semantic", ["x"], input_type="query")
        plain = await made.embed("semantic", ["q x", "x"])
        np.testing.assert_array_equal(query.rows[0], plain.rows[0])
        assert not np.array_equal(query.rows[0], plain.rows[1])
        await finish(made)

    run(main())
