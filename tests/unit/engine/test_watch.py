"""Health of a running engine: what is found, told once, and what follows."""

import asyncio

import pytest

from embedfleet.api import Batching, Health
from embedfleet_server.batching.pressure import Level, Reading
from embedfleet_server.batching.types import LOW, NORMAL
from embedfleet_server.engine.engine import Engine
from embedfleet_server.engine.errors import QueueFull
from embedfleet_server.engine.health import Transition
from tests.support.simulation import SimulatedWorkers, config, engine, texts
from tests.support.virtual_time import run


def told(made: Engine) -> list[tuple[str, str]]:
    """What a look finds new."""
    return [(str(change.finding.code), change.transition.value) for change in made.look()]


@pytest.mark.requirement("H1")
def test_a_full_queue_is_told_once_and_low_work_refused_until_it_drains() -> None:
    """At the critical threshold LOW is refused and NORMAL is not; when the queue is short again, that is told too."""

    async def main() -> None:
        health = Health(queue_warning=5, queue_critical=10)
        made = engine(Batching(health=health), workers=SimulatedWorkers(start_seconds=1.0))
        await made.start()
        await made.embed("semantic", ["warm"])
        assert told(made) == []
        work = [asyncio.create_task(made.embed("semantic", ["x"])) for _ in range(45)]
        await asyncio.sleep(0.5)
        assert told(made) == [("queue", "appeared")]
        assert told(made) == []
        with pytest.raises(QueueFull, match="LOW work"):
            await made.embed("semantic", ["x"], priority=LOW)
        await made.embed("semantic", ["x"], priority=NORMAL)
        await asyncio.gather(*work)
        assert told(made) == [("queue", Transition.CLEARED.value)]
        assert (await made.embed("semantic", ["x"], priority=LOW)).rows.shape == (1, 4)
        assert made.state()["health_counts"] == {"queue": 1}
        await made.stop(10.0)

    run(main())


@pytest.mark.requirement("H1")
def test_a_stuck_batch_is_named() -> None:
    """A forward that runs longer than any caller waits is critical, with the model's name."""

    async def main() -> None:
        made = engine(Batching(item_timeout_seconds=30), workers=SimulatedWorkers())
        await made.start()
        await made.embed("semantic", ["warm"])
        made._workers.start_seconds = 100.0  # type: ignore[attr-defined]  # the simulated device is slow from now on
        stuck = asyncio.create_task(made.embed("semantic", ["x"]))
        await asyncio.sleep(31.0)
        made.look()
        (found,) = made.state()["health"]
        assert (found["code"], found["severity"], found["model"]) == ("stuck_batch", "CRITICAL", "semantic")
        await asyncio.wait([stuck])
        assert stuck.exception() is not None
        await made.stop(200.0)

    run(main())


@pytest.mark.requirement("A3", "H1")
def test_memory_shrinks_batches_then_closes_the_door() -> None:
    """At 85 % batches hold half their tokens, at 95 % a quarter and requests are refused; at 50 % all is as before."""

    async def main() -> None:
        share = [0.5]
        workers = SimulatedWorkers()
        plain = engine(Batching(max_batch_tokens=160), config("semantic"), workers=workers)
        made = Engine(
            "semantic",
            {"semantic": config("semantic")},
            plain.settings,
            workers=workers,
            readings=lambda: {"host": Reading(share[0], 1.0)},
        )
        await made.start()
        await made.embed("semantic", ["warm"])

        async def largest() -> int:
            del workers.batches[:]
            await made.embed("semantic", texts(32, 10))
            return max(map(len, workers.batches))

        sizes = []
        for share[0] in (0.5, 0.85):
            made.look()
            sizes.append(await largest())
        assert sizes == [16, 8]
        share[0] = 0.95
        made.look()
        with pytest.raises(QueueFull, match="memory of host is 95% full"):
            await made.embed("semantic", ["x"])
        assert made.state()["health"][0]["severity"] == Level.CRITICAL.name
        share[0] = 0.5
        made.look()
        assert await largest() == 16
        await made.stop(10.0)

    run(main())
