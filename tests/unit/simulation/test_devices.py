"""Several devices in virtual time: what they give together, and who computes how much."""

import asyncio
import functools
from collections import Counter
from collections.abc import Mapping

import pytest

from embedfleet.api import Batching
from tests.support.finishing import finish
from tests.support.simulation import SimulatedWorkers, config, engine, texts
from tests.support.virtual_time import run
from tests.unit.simulation.plan import draw
from tests.unit.simulation.world import World, live

NAMES = ("sim:0", "sim:1", "sim:2", "sim:3")
SATURATED = Batching(max_queued_requests=100_000, item_timeout_seconds=3600, max_concurrent_batches=4)
FIXED = SATURATED.model_copy(update={"sizing": "Fixed"})


def served(devices: int, paces: Mapping[str, float], batching: Batching = SATURATED) -> tuple[float, Counter[str]]:
    """Seconds from the first batch to the last answer of many texts at once, and the tokens of each device."""

    async def main() -> tuple[float, Counter[str]]:
        workers = SimulatedWorkers(start_seconds=0.01, seconds_per_token=0.001, paces=paces)
        first, *further = NAMES[:devices]
        made = engine(batching, config("semantic", device=first, further=further), workers=workers)
        await made.start()
        await made.embed("semantic", ["warm"])
        workers.tokens.clear()
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.gather(*(made.embed("semantic", texts(100, 8)) for _ in range(100)))
        seconds = loop.time() - began
        await finish(made)
        return seconds, workers.tokens

    return run(main())


@functools.cache
def alone(*, fixed: bool = False) -> float:
    """Seconds that one device takes for the same."""
    return served(1, {}, FIXED if fixed else SATURATED)[0]


@pytest.mark.requirement("B6")
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("devices", [2, 3, 4])
def test_equal_devices_give_their_number_times_the_throughput_of_one(devices: int, *, fixed: bool) -> None:
    """At least 0.95 of it, and each computes its even part."""
    together, tokens = served(devices, {}, FIXED if fixed else SATURATED)
    assert alone(fixed=fixed) / together >= 0.95 * devices
    assert min(tokens.values()) >= 0.9 * sum(tokens.values()) / devices


@pytest.mark.requirement("B6")
@pytest.mark.parametrize("pace", [2.0, 4.0])
def test_a_faster_device_computes_as_much_more(pace: float) -> None:
    """Twice as fast, about twice the tokens; whichever of them comes first. Together they give the sum of both."""
    for slow, fast in (NAMES[:2], NAMES[1::-1]):
        together, tokens = served(2, {slow: pace})
        assert tokens[fast] / tokens[slow] == pytest.approx(pace, rel=0.1)
        assert alone() / together >= 0.93 * (1 + 1 / pace)


@pytest.mark.requirement("B6")
def test_fewer_permits_than_devices_are_the_bound() -> None:
    """With two permits four devices give what two give."""
    together, _ = served(4, {}, SATURATED.model_copy(update={"max_concurrent_batches": 2}))
    assert 1.9 <= alone() / together <= 2.05


def test_the_worlds_with_several_devices_use_all_of_them() -> None:
    """Of three hundred seeds enough have two, three and four devices, of unlike speed, each computing something."""
    counts: Counter[object] = Counter()
    for seed in range(300):
        plan = draw(seed)
        if "copies" not in plan.habits:
            continue
        live(world := World(plan))
        used = len(world.truth.tokens)
        counts[len(plan.paces)] += 1
        counts["used"] += used > 1
        counts["all used"] += used == len(plan.paces)
        counts["unlike"] += len(set(plan.paces.values())) > 1
    assert min(counts[size] for size in (2, 3, 4)) >= 15
    assert counts["used"] >= 40
    assert counts["all used"] >= 20
    assert counts["unlike"] >= 40
