"""The driver over the real core, on a virtual clock and a simulated device."""

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from embedfleet.api import Batching, BatchingSettings, ModelBatching
from embedfleet_server.batching.types import CRITICAL, LOW, NORMAL
from embedfleet_server.engine.engine import Engine
from embedfleet_server.engine.errors import (
    DeadlineExceeded,
    ModelLoadFailed,
    ModelLoading,
    ModelNotFound,
    QueueFull,
    ShuttingDown,
    Stopped,
    TooLarge,
    TooLate,
)
from embedfleet_server.engine.faults import OutOfMemory, TransientError
from embedfleet_server.engine.protocols import Encoded, Model, Rows
from embedfleet_server.engine.slots import ModelConfig
from tests.support.simulation import (
    SimulatedModel,
    SimulatedWorkers,
    config,
    engine,
    text,
    tokens_of,
    vector_of,
)
from tests.support.virtual_time import run


async def finish(made: Engine) -> None:
    """Stop, and see that nothing is left."""
    await made.stop(60.0)
    stats = made.stats()
    assert stats.waiting == stats.running == stats.active_batches == made.total_queue_depth == 0
    assert stats.submitted == stats.completed + stats.failed + stats.cancelled


@pytest.mark.requirement("B9")
def test_each_caller_gets_its_own_rows_in_its_order() -> None:
    """Fifty requests of mixed lengths share batches; every row is the vector of its own text."""

    async def main() -> None:
        made = engine(Batching(max_batch_size=16))
        await made.start()
        requests = [[text(1 + (7 * r + i) % 40, f"w{r}") for i in range(1 + r % 9)] for r in range(50)]
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
        taken = asyncio.create_task(made.embed("semantic", [text(20)] * 990))
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


class Misshapen(SimulatedModel):
    """Gives what a wrong model could give, for texts that hold one of its words."""

    def forward(self, batch: Sequence[Encoded]) -> Rows:
        rows = super().forward(batch)
        for position, item in enumerate(batch):
            if tokens_of("few")[0] in item.token_ids:
                return rows[:-1]
            if tokens_of("many")[0] in item.token_ids:
                return np.concatenate([rows, rows])
            if tokens_of("raise")[0] in item.token_ids:
                raise RuntimeError("the device said no")
            if tokens_of("nan")[0] in item.token_ids:
                rows[position, 1] = np.nan
        return rows


@pytest.mark.requirement("B9", "B22")
@pytest.mark.parametrize("word", ["few", "many", "raise"])
def test_one_bad_input_fails_alone(word: str) -> None:
    """Too few rows, too many, or an exception because of one input: only that one fails, no row is shuffled."""

    async def main() -> None:
        workers = SimulatedWorkers()
        made = engine(Batching(max_batch_size=64), ModelConfig("semantic", Misshapen), workers=workers)
        await made.start()
        await made.embed("semantic", ["warm"])
        before = len(workers.batches)
        texts = [f"t{i}" for i in range(63)] + [word]
        answer = await made.embed("semantic", texts)
        assert list(answer.errors) == [63]
        np.testing.assert_array_equal(answer.rows[:63], np.stack([vector_of(tokens_of(t)) for t in texts[:63]]))
        assert len(workers.batches) - before - 1 <= 2 * 6 + 1
        assert (made.stats().failed, made.stats().active_batches) == (1, 0)
        await finish(made)

    run(main())


@pytest.mark.requirement("B22")
def test_a_fault_that_may_pass_is_tried_again_after_a_growing_wait() -> None:
    """A device away for two tries: tried after 1 s and 2 s more, and nobody notices but by the time."""

    class Away(SimulatedModel):
        left = 2

        def forward(self, batch: Sequence[Encoded]) -> Rows:
            if tokens_of("now")[0] in batch[0].token_ids and self.left:
                self.left -= 1
                raise TransientError("the link is down")
            return super().forward(batch)

    async def main() -> None:
        workers = SimulatedWorkers(start_seconds=0.0, seconds_per_token=0.0)
        made = engine(None, ModelConfig("semantic", Away), workers=workers)
        await made.start()
        await made.embed("semantic", ["warm"])
        begun = asyncio.get_running_loop().time()
        answer = await made.embed("semantic", ["now", "and"])
        assert not answer.errors
        np.testing.assert_allclose([t - begun for t in workers.started[-3:]], [0.0, 1.0, 3.0])
        await finish(made)

    run(main())


@pytest.mark.requirement("B23")
def test_out_of_memory_shrinks_batches_and_they_grow_back() -> None:
    """A device that holds 40 tokens: every text is served, batches shrink to fit, one too large alone is named."""

    class Small(SimulatedModel):
        room = 40

        def forward(self, batch: Sequence[Encoded]) -> Rows:
            if sum(len(item.token_ids) for item in batch) > self.room:
                raise OutOfMemory("no room")
            return super().forward(batch)

    async def main() -> None:
        workers = SimulatedWorkers()
        model = Small()
        made = engine(Batching(max_batch_size=64), ModelConfig("semantic", lambda: model), workers=workers)
        await made.start()
        answer = await made.embed("semantic", [text(8)] * 64)
        assert not answer.errors
        del workers.batches[:]
        await made.embed("semantic", [text(8)] * 20)
        assert max(len(batch) * 8 for batch in workers.batches) <= 40
        alone = await made.embed("semantic", [text(50), "short"])
        assert {index: error.code for index, error in alone.errors.items()} == {0: "input_too_large"}
        model.room = 10_000
        for _ in range(1500):
            await made.embed("semantic", [text(8)])
        del workers.batches[:]
        await made.embed("semantic", [text(8)] * 64)
        assert max(map(len, workers.batches)) > 10
        await finish(made)

    run(main())


@pytest.mark.requirement("B8")
def test_higher_priority_leaves_first_and_the_lowest_still_leaves() -> None:
    """CRITICAL overtakes a queue of NORMAL; LOW under a constant flood of CRITICAL leaves within the stated 25.5 s."""

    async def main() -> None:
        made = engine(Batching(max_batch_size=4, item_timeout_seconds=60), workers=SimulatedWorkers(0.1, 0.0))
        await made.start()
        await made.embed("semantic", ["warm"])
        order: list[str] = []

        async def ask(name: str, priority: int) -> None:
            await made.embed("semantic", [name], priority=priority)
            order.append(name)

        normal = [asyncio.create_task(ask("normal", NORMAL)) for _ in range(40)]
        await asyncio.sleep(0.05)
        await ask("critical", CRITICAL)
        assert order.index("critical") <= 8
        await asyncio.gather(*normal)
        begun = asyncio.get_running_loop().time()
        low = asyncio.create_task(ask("low", LOW))
        flood: set[asyncio.Task[None]] = set()
        while not low.done():
            while len(flood) < 12:
                flood.add(task := asyncio.create_task(ask("flood", CRITICAL)))
                task.add_done_callback(flood.discard)
            await asyncio.sleep(0.05)
        assert 1.0 < asyncio.get_running_loop().time() - begun <= 25.5
        await finish(made)

    run(main())


@pytest.mark.requirement("B10")
def test_a_callers_own_deadline_is_kept_and_a_past_one_refused() -> None:
    """`within` 0.5 s: told then, with nothing computed for it later; 0 or less is refused at once."""

    async def main() -> None:
        workers = SimulatedWorkers(2.0, 0.0)
        made = engine(workers=workers)
        await made.start()
        await made.embed("semantic", ["warm"])
        running = asyncio.create_task(made.embed("semantic", ["stays"]))
        await asyncio.sleep(0.01)
        begun = asyncio.get_running_loop().time()
        with pytest.raises(DeadlineExceeded):
            await made.embed("semantic", ["late"], within=0.5)
        assert asyncio.get_running_loop().time() - begun == pytest.approx(0.5)
        with pytest.raises(TooLate, match="had passed"):
            await made.embed("semantic", ["late"], within=0.0)
        await running
        await finish(made)
        assert len(workers.batches) == 3

    run(main())


@pytest.mark.requirement("B17")
def test_without_batching_each_request_is_its_own_batch() -> None:
    """`enabled: false`: three requests of two texts are three batches of two."""

    async def main() -> None:
        workers = SimulatedWorkers()
        made = engine(Batching(enabled=False), workers=workers)
        await made.start()
        await asyncio.gather(*(made.embed("semantic", ["a", "b c"]) for _ in range(3)))
        assert [len(batch) for batch in workers.batches[1:]] == [2, 2, 2]
        await finish(made)

    run(main())


@pytest.mark.requirement("B18")
def test_starts_are_spaced_but_never_against_the_wait_limit() -> None:
    """100 ms between starts; a request that has waited its 50 ms goes all the same."""

    async def main() -> None:
        workers = SimulatedWorkers(0.001, 0.0)
        spaced = Batching(min_batch_interval_milliseconds=100, max_wait_milliseconds=1000)
        made = engine(spaced, workers=workers)
        await made.start()
        await asyncio.gather(*(made.embed("semantic", ["a"]) for _ in range(3)))
        for _ in range(3):
            await made.embed("semantic", ["a"])
        starts = workers.started[1:]
        assert min(b - a for a, b in itertools.pairwise(starts)) == pytest.approx(0.1)
        made.apply(BatchingSettings(batching=Batching(min_batch_interval_milliseconds=60_000)))
        begun = asyncio.get_running_loop().time()
        await made.embed("semantic", ["a"])
        assert asyncio.get_running_loop().time() - begun == pytest.approx(0.051)
        await finish(made)

    run(main())


@pytest.mark.requirement("B19")
def test_pause_keeps_the_queue_and_resume_goes_on_in_order() -> None:
    """Paused: nothing runs, work is admitted up to the bound; the other model goes on; resumed, the oldest go first."""

    async def main() -> None:
        workers = SimulatedWorkers()
        made = engine(
            Batching(max_batch_size=2, max_queued_requests=6), config("semantic"), config("code"), workers=workers
        )
        await made.start()
        await asyncio.gather(made.embed("semantic", ["w"]), made.embed("code", ["w"]))
        made.pause("semantic")
        order: list[int] = []

        async def ask(number: int) -> None:
            await made.embed("semantic", ["x"])
            order.append(number)

        tasks = [asyncio.create_task(ask(i)) for i in range(6)]
        await asyncio.sleep(5.0)
        assert (made.queue_depth("semantic"), order, made.paused) == (6, [], ["semantic"])
        with pytest.raises(QueueFull):
            await made.embed("semantic", ["y"])
        made.pause("semantic", paused=False)
        await asyncio.gather(*tasks)
        assert order == list(range(6))
        await finish(made)

    run(main())


@pytest.mark.requirement("B20")
def test_every_value_changes_while_work_waits_and_nothing_is_lost() -> None:
    """Sizes, sorting, permits, bounds, pause and enabled changed thirty times under load: each request is answered."""

    async def main() -> None:
        workers = SimulatedWorkers()
        made = engine(Batching(), config("semantic"), config("code"), workers=workers)
        await made.start()
        chance = random.Random(7)
        tasks = []
        for step in range(300):
            name = chance.choice(["semantic", "code"])
            tasks.append(asyncio.create_task(made.embed(name, [text(chance.randint(1, 60))] * chance.randint(1, 4))))
            if step % 10 == 0:
                made.apply(
                    BatchingSettings(
                        batching=Batching(
                            enabled=chance.random() < 0.7,
                            paused=chance.random() < 0.3,
                            max_batch_size=chance.randint(1, 64),
                            max_batch_tokens=chance.choice([20, 500, 16384]),
                            sort_by_length=chance.random() < 0.5,
                            dispatch_when_idle=chance.random() < 0.5,
                            max_concurrent_batches=chance.randint(1, 8),
                            max_queued_requests=2000,
                        )
                    )
                )
            await asyncio.sleep(0.01)
        made.apply(BatchingSettings(batching=Batching(max_batch_size=5)))
        answers = await asyncio.gather(*tasks)
        assert len(answers) == 300
        del workers.batches[:]
        await made.embed("semantic", ["x"] * 20)
        assert max(map(len, workers.batches)) == 5
        await finish(made)

    run(main())


@pytest.mark.requirement("B21")
def test_a_tenant_at_a_hundred_times_its_share_leaves_the_others_theirs() -> None:
    """Three tenants offer a quarter of the capacity each, one offers 25 times it: the three lose less than a tenth."""

    async def main() -> None:
        workers = SimulatedWorkers(0.010, 0.001)  # 32 texts of 10 tokens: 0.33 s, about 97 texts/s
        made = engine(Batching(item_timeout_seconds=20), workers=workers)
        await made.start()
        await made.embed("semantic", ["warm"])
        done: Counter[str] = Counter()
        tried: Counter[str] = Counter()

        async def ask(tenant: str) -> None:
            tried[tenant] += 1
            with contextlib.suppress(QueueFull, DeadlineExceeded):
                await made.embed("semantic", [text(10)], tenant=tenant)
                done[tenant] += 1

        async def offer(tenant: str, per_second: float, seconds: float) -> None:
            tasks = []
            for _ in range(int(per_second * seconds)):
                tasks.append(asyncio.create_task(ask(tenant)))
                await asyncio.sleep(1 / per_second)
            await asyncio.gather(*tasks)

        await asyncio.gather(*(offer(t, 20.0, 60.0) for t in "abc"), offer("greedy", 2500.0, 60.0))
        shares = [done[t] / tried[t] for t in "abc"]
        assert min(shares) >= 0.9
        assert sum(shares) ** 2 / (3 * sum(share**2 for share in shares)) >= 0.95
        await finish(made)

    run(main())


@pytest.mark.requirement("B9")
def test_a_row_that_is_not_finite_is_named_and_never_served() -> None:
    """The bad row of a batch is NaN and stands in `errors`; its neighbours, of other callers too, are whole."""

    async def main() -> None:
        made = engine(None, ModelConfig("semantic", Misshapen))
        await made.start()
        bad, good = await asyncio.gather(made.embed("semantic", ["a", "nan", "c"]), made.embed("semantic", ["d"]))
        assert list(bad.errors) == [1]
        assert bad.errors[1].code == "not_finite"
        assert np.isnan(bad.rows[1]).all()
        assert np.isfinite(bad.rows[[0, 2]]).all()
        assert not good.errors
        await finish(made)

    run(main())


@pytest.mark.requirement("B10")
def test_a_caller_that_went_away_costs_no_forward() -> None:
    """A cancelled request that still waited never reaches the device, and frees its places at once."""

    async def main() -> None:
        workers = SimulatedWorkers()
        made = engine(workers=workers)
        await made.start()
        await made.embed("semantic", ["warm"])
        running = asyncio.create_task(made.embed("semantic", ["stays"]))
        await asyncio.sleep(0.001)
        gone = asyncio.create_task(made.embed("semantic", ["goes"] * 500))
        await asyncio.sleep(0.001)
        assert made.total_queue_depth == 500
        gone.cancel()
        await asyncio.wait([gone])
        assert made.total_queue_depth == 0
        await running
        assert sum(map(len, workers.batches)) == 3  # the self-test, the warm-up, the one that stayed
        await finish(made)

    run(main())


@pytest.mark.requirement("B24")
def test_no_caller_waits_past_its_time() -> None:
    """A device that needs a minute: the caller is told after itemTimeoutSeconds, and what it asked is dropped."""

    async def main() -> None:
        made = engine(Batching(item_timeout_seconds=3), workers=SimulatedWorkers(seconds_per_token=0.01))
        await made.start()
        await made.embed("semantic", ["warm"])
        flood = asyncio.create_task(made.embed("semantic", [text(100)] * 32))
        await asyncio.sleep(0.001)
        started = asyncio.get_running_loop().time()
        with pytest.raises(DeadlineExceeded):
            await made.embed("semantic", ["late"])
        assert asyncio.get_running_loop().time() - started == pytest.approx(3.0)
        with pytest.raises(DeadlineExceeded):
            await flood
        await finish(made)

    run(main())


@pytest.mark.requirement("B11")
def test_a_lazy_model_loads_once_at_the_first_request() -> None:
    """Fifty requests at once: one load, no permit held meanwhile, the other model served during it, all answered."""

    async def main() -> None:
        workers = SimulatedWorkers(load_seconds=5.0)
        made = engine(None, config("semantic"), config("code", lazy=True, required=False), workers=workers)
        await made.start()
        await made.embed("semantic", ["eager"])
        assert (workers.loads, made.ready) == (1, True)
        waiting = [asyncio.create_task(made.embed("code", [f"t{i}"])) for i in range(50)]
        await asyncio.sleep(1.0)
        assert made.stats().active_batches == 0
        await made.embed("semantic", ["meanwhile"])
        assert len([a.rows for a in await asyncio.gather(*waiting)]) == 50
        assert workers.loads == 2
        await finish(made)

    run(main())


@pytest.mark.requirement("B11")
def test_a_request_waits_for_loading_up_to_its_own_time() -> None:
    """Loading takes longer than itemTimeoutSeconds: "model loading", which is worth another try."""

    async def main() -> None:
        made = engine(Batching(item_timeout_seconds=2), workers=SimulatedWorkers(load_seconds=60.0))
        await made.start()
        with pytest.raises(ModelLoading, match="still loading"):
            await made.embed("semantic", ["x"])
        assert made.total_queue_depth == 0
        await finish(made)

    run(main())


class FailsTwice:
    """A loader that works the third time."""

    calls = 0

    def __call__(self) -> Model:
        self.calls += 1
        if self.calls <= 2:
            raise ModelLoadFailed("code", "the disk was full")
        return SimulatedModel("code")


@pytest.mark.requirement("B12")
def test_a_model_that_cannot_load_fails_only_its_own_requests() -> None:
    """The error names model and cause, the next attempts come after 10 and 20 s, others are served meanwhile."""

    async def main() -> None:
        loader = FailsTwice()
        made = engine(None, config("semantic"), ModelConfig("code", loader, required=False))
        await made.start()
        await made.embed("semantic", ["fine"])
        with pytest.raises(ModelLoadFailed, match="'code' could not be loaded: the disk was full"):
            await made.embed("code", ["x"])
        with pytest.raises(ModelLoadFailed) as again:
            await made.embed("code", ["x"])
        assert loader.calls == 1
        assert again.value.retry_after == pytest.approx(10.0, abs=0.1)
        await asyncio.sleep(15)
        assert loader.calls == 2
        await asyncio.sleep(20)
        assert (await made.embed("code", ["x"])).rows.shape == (1, 4)
        assert [m.state for m in made.models()] == ["Ready", "Ready"]
        await finish(made)

    run(main())


@pytest.mark.requirement("B12")
def test_a_model_whose_self_test_is_not_finite_is_not_served() -> None:
    """A model that gives NaN for a known text fails to load, and the service is not ready."""

    class Broken(SimulatedModel):
        def forward(self, batch: Sequence[Encoded]) -> Rows:
            return np.full((len(batch), 4), np.nan, np.float32)

    async def main() -> None:
        made = engine(None, ModelConfig("semantic", Broken))
        await made.start()
        with pytest.raises(ModelLoadFailed, match="self-test"):
            await made.embed("semantic", ["x"])
        assert not made.ready
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
        tasks = [asyncio.create_task(made.embed(m, ["x"])) for m in ["semantic"] * 20 + ["code"] * 5]
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
