"""Whose turn it is and what is dropped: priority, deadline, pause, tenants, changes while work waits."""

import asyncio
import contextlib
import itertools
import random
from collections import Counter

import pytest

from embedfleet.api import Batching, BatchingSettings
from embedfleet_server.batching.types import CRITICAL, LOW, NORMAL
from embedfleet_server.engine.errors import (
    DeadlineExceeded,
    QueueFull,
    TooLate,
)
from tests.support.finishing import finish
from tests.support.simulation import (
    SimulatedWorkers,
    config,
    engine,
    text,
    texts,
)
from tests.support.virtual_time import run


@pytest.mark.requirement("B8")
def test_higher_priority_leaves_first_and_the_lowest_still_leaves() -> None:
    """CRITICAL overtakes a queue of NORMAL; LOW under a constant flood of CRITICAL leaves within the stated 25.5 s."""

    async def main() -> None:
        made = engine(Batching(max_batch_size=4, item_timeout_seconds=60), workers=SimulatedWorkers(0.1, 0.0))
        await made.start()
        await made.embed("semantic", ["warm"])
        order: list[str] = []

        async def ask(name: str, priority: int) -> None:
            await made.embed("semantic", [text(1)], priority=priority)
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
        await asyncio.gather(*(made.embed("semantic", texts(2, 1)) for _ in range(3)))
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
            await made.embed("semantic", [f"x{number}"])
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
            tasks.append(asyncio.create_task(made.embed(name, texts(chance.randint(1, 4), chance.randint(1, 60)))))
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
        await made.embed("semantic", texts(20, 1))
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

        await asyncio.gather(*(offer(t, 20.0, 30.0) for t in "abc"), offer("greedy", 2500.0, 30.0))
        shares = [done[t] / tried[t] for t in "abc"]
        assert min(shares) >= 0.9
        assert sum(shares) ** 2 / (3 * sum(share**2 for share in shares)) >= 0.95
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
        flood = asyncio.create_task(made.embed("semantic", texts(32, 100)))
        await asyncio.sleep(0.001)
        started = asyncio.get_running_loop().time()
        with pytest.raises(DeadlineExceeded):
            await made.embed("semantic", ["late"])
        assert asyncio.get_running_loop().time() - started == pytest.approx(3.0)
        with pytest.raises(DeadlineExceeded):
            await flood
        await finish(made)

    run(main())
