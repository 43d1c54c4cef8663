"""What a model is put through between its self-test and Ready, and what callers gain by it; on a simulated device."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import pytest

from embedfleet.api import Batching, Health
from embedfleet_server.batching.pressure import Reading
from embedfleet_server.batching.warm_up import Shape
from embedfleet_server.engine.engine import Engine
from embedfleet_server.engine.errors import DeviceLost, QueueFull
from embedfleet_server.engine.faults import OutOfMemory
from embedfleet_server.engine.protocols import Encoded, Rows
from embedfleet_server.engine.slots import ModelConfig
from embedfleet_server.engine.warming import made as batch_of
from embedfleet_server.engine.warming import room_mib
from tests.support.finishing import finish
from tests.support.simulation import SimulatedModel, SimulatedWorkers, config, engine, texts
from tests.support.virtual_time import run

MIB = 1 << 20
WHOLE = 1.5
"""Seconds for all models."""
SELF_TEST = [9]


async def until_ready(made: Engine) -> None:
    """The models are loaded, and nobody asked anything."""
    while not made.ready:  # noqa: ASYNC110  # the engine says how it is when asked, and calls nobody
        await asyncio.sleep(0.001)


def shapes(workers: SimulatedWorkers, name: str = "semantic") -> list[tuple[int, int]]:
    """Inputs and length of each forward of a model, its self-test's first."""
    ran = [batch for batch, model in zip(workers.batches, workers.models, strict=True) if model == name]
    assert all(len(set(batch)) == 1 for batch in ran)
    return [(len(batch), batch[0]) for batch in ran]


@dataclass
class Failing(SimulatedModel):
    """Raises `error` for more than `most` tokens; takes 1 MiB a token where `is_measured`."""

    error: Callable[[], Exception] = lambda: OutOfMemory("CUDA out of memory")
    most: int = 1 << 30
    is_measured: bool = False
    last: float | None = field(default=None, init=False)

    def forward(self, batch: Sequence[Encoded]) -> Rows:
        tokens = sum(len(item.token_ids) for item in batch)
        if tokens > self.most:
            raise self.error()
        self.last = float(tokens)
        return super().forward(batch)

    def peak_mib(self) -> float | None:
        return self.last if self.is_measured else None


def of(**fields: object) -> ModelConfig:
    return ModelConfig("semantic", lambda: Failing(**fields))  # type: ignore[arg-type]  # fields by name


@pytest.mark.requirement("S5", "B7")
def test_the_figures_of_the_device_are_measured_before_ready() -> None:
    """10 ms to start, 0.1 ms a token: exact figures once ready and none before; they took their time and no more."""

    async def main() -> None:
        workers = SimulatedWorkers()
        made = engine(workers=workers, warm_up=WHOLE)
        await made.start()
        assert made.warm_up("semantic") is None
        await asyncio.sleep(1.0)
        assert not made.ready
        await until_ready(made)
        found = made.warm_up("semantic")
        assert found is not None
        assert found.start_seconds == pytest.approx(0.010)
        largest = {16: 4096, 64: 4096, 256: 512, 512: 512}
        assert found.tokens_per_second == pytest.approx({k: n / (0.01 + n * 0.0001) for k, n in largest.items()})
        assert found.reason == "the rest would not have been done within 1.5 s"
        took = 2 * (0.0116 + 0.0228 + 4 * 0.0612) + 2 * 0.4196
        assert found.seconds == pytest.approx(took)
        assert asyncio.get_running_loop().time() == pytest.approx(0.0109 + took, abs=0.002)
        assert shapes(workers)[:5] == [(1, 9), (1, 16), (1, 16), (8, 16), (8, 16)]
        assert made.stats().batches == 0
        await finish(made)

    run(main())


@pytest.mark.requirement("B7")
def test_the_first_refusal_says_when_there_is_room() -> None:
    """Nothing was computed yet: 64 texts of 100 tokens wait, and by the measured speed that is how long they take."""

    async def main() -> None:
        made = engine(Batching(max_queued_requests=64), workers=SimulatedWorkers(), warm_up=WHOLE)
        await made.start()
        await until_ready(made)
        made.pause()
        waiting = asyncio.create_task(made.embed("semantic", texts(64, 100)))
        await asyncio.sleep(0.001)
        with pytest.raises(QueueFull) as full:
            await made.embed("semantic", texts(1, 100))
        ran = [tokens * 0.98**age for age, tokens in enumerate([4096, 4096, 512, 512, 512, 512, 128, 16])]
        mean = sum(ran) / sum(0.98**age for age in range(8))
        assert full.value.retry_after == pytest.approx(6400 * (0.01 + 0.0001 * mean) / mean)
        assert made.wait("semantic") == pytest.approx(1.5 * full.value.retry_after)
        made.pause(paused=False)
        await waiting
        await finish(made)

    run(main())


@pytest.mark.requirement("B7")
def test_without_a_warm_up_the_first_refusal_knows_nothing() -> None:
    """A second, whatever waits; and nothing but the self-test ran."""

    async def main() -> None:
        workers = SimulatedWorkers()
        made = engine(Batching(max_queued_requests=64), workers=workers)
        await made.start()
        await until_ready(made)
        assert (shapes(workers), made.warm_up("semantic")) == ([(1, 9)], None)
        made.pause()
        waiting = asyncio.create_task(made.embed("semantic", texts(64, 100)))
        await asyncio.sleep(0.001)
        with pytest.raises(QueueFull) as full:
            await made.embed("semantic", texts(1, 100))
        assert full.value.retry_after == 1.0
        made.pause(paused=False)
        await waiting
        await finish(made)

    run(main())


@pytest.mark.requirement("B11")
def test_who_waits_for_a_model_does_not_wait_for_a_warm_up() -> None:
    """A request at the start, and one that comes in the middle: the forward that runs is the last."""

    async def main() -> None:
        for comes in (0.0, 0.2):
            workers = SimulatedWorkers()
            made = engine(workers=workers, warm_up=WHOLE)
            await made.start()
            await asyncio.sleep(comes)
            began = asyncio.get_running_loop().time()
            await made.embed("semantic", texts(1, 4))
            assert asyncio.get_running_loop().time() - began < 0.0109 + 0.0104 + 0.0612
            found = made.warm_up("semantic")
            assert found is not None
            assert found.reason == "there was work to do"
            assert bool(found.tokens_per_second) == bool(comes)
            await finish(made)

    run(main())


@pytest.mark.requirement("B11")
def test_a_model_that_loads_when_it_is_asked_for_is_not_measured() -> None:
    """Its first caller waits for it. The eager one has all the time there is."""

    async def main() -> None:
        workers = SimulatedWorkers()
        lazy = config("code", lazy=True, required=False)
        made = engine(None, config("semantic"), lazy, workers=workers, warm_up=WHOLE)
        await made.start()
        await until_ready(made)
        await made.embed("code", texts(1, 4))
        assert shapes(workers, "code") == [(1, 9), (1, 4)]
        assert made.warm_up("code") is None
        assert (64, 64) in shapes(workers)
        await finish(made)

    run(main())


@pytest.mark.requirement("S5")
def test_models_of_one_device_are_measured_one_after_the_other() -> None:
    """Three of them, one elsewhere: each forward is alone on its device, and all together take no longer than one.

    What the first one measures may have waited for the self-test of the next.
    """

    async def main() -> None:
        workers = SimulatedWorkers()
        three = (config("semantic"), config("code"), config("graph", device="sim:1"))
        made = engine(None, *three, workers=workers, warm_up=WHOLE)
        await made.start()
        await until_ready(made)
        order = [name for name, batch in zip(workers.models, workers.batches, strict=True) if batch != SELF_TEST]
        turns = [name for name, _ in groupby(name for name in order if name != "graph")]
        assert sorted(turns) == ["code", "semantic"]
        costs = [made.warm_up(name) for name in ("semantic", "code", "graph")]
        assert all(found is not None and found.seconds == pytest.approx(0.4972, abs=0.06) for found in costs[:2])
        assert costs[2] is not None
        assert costs[2].seconds == pytest.approx(0.4972)
        assert sum(found.seconds for found in costs if found is not None) <= WHOLE
        await finish(made)

    run(main())


@pytest.mark.requirement("B23")
@pytest.mark.parametrize("error", [lambda: OutOfMemory("CUDA out of memory"), MemoryError])
def test_memory_that_runs_out_makes_batches_smaller_and_the_model_ready(error: Callable[[], Exception]) -> None:
    """Of 4,096 tokens half are left: none larger is tried again, here or by the first batches."""

    async def main() -> None:
        workers = SimulatedWorkers()
        made = engine(None, of(error=error, most=3000), workers=workers, warm_up=100.0)
        await made.start()
        await until_ready(made)
        ran = [Shape(*shape).tokens for shape in shapes(workers)]
        assert [tokens for tokens in ran if tokens > 2048] == [4096]
        found = made.warm_up("semantic")
        assert found is not None
        assert found.reason == (
            "64 texts of 64 tokens had no room in memory; larger batches would not have had room in memory"
        )
        assert set(found.tokens_per_second) == {16, 64, 256, 512}
        assert made.safe_tokens("semantic") == 2048
        assert not (await made.embed("semantic", texts(40, 100))).errors
        assert max(map(sum, workers.batches[len(ran) :])) <= 2048
        assert made.stats().retried == 0
        await finish(made)

    run(main())


@pytest.mark.requirement("B12")
def test_a_fault_ends_the_warm_up_and_fails_no_model(caplog: pytest.LogCaptureFixture) -> None:
    """It embedded the known text: what it raised for made ones is said, and what was measured before it is kept."""

    async def main() -> None:
        workers = SimulatedWorkers()
        made = engine(None, of(error=lambda: RuntimeError("no kernel"), most=500), workers=workers, warm_up=WHOLE)
        await made.start()
        await until_ready(made)
        found = made.warm_up("semantic")
        assert found is not None
        assert found.reason == "8 texts of 64 tokens failed: RuntimeError: no kernel"
        assert set(found.tokens_per_second) == {16}
        assert "the warm-up of model semantic ends" in caplog.text
        assert made.safe_tokens("semantic") is None
        assert made.state()["breakers"]["semantic"] == "closed"
        assert not (await made.embed("semantic", texts(2, 4))).errors
        await finish(made)

    run(main())


@pytest.mark.requirement("B12")
def test_a_device_that_is_lost_in_a_warm_up_serves_nothing() -> None:
    """There only a new process helps, as in the self-test."""

    async def main() -> None:
        lost = of(error=lambda: DeviceLost("an illegal memory access"), most=500)
        made = engine(None, lost, workers=SimulatedWorkers(), warm_up=WHOLE)
        await made.start()
        await asyncio.sleep(2.0)
        (status,) = made.models()
        assert (status.state, made.ready) == ("Failed", False)
        assert "an illegal memory access" in (status.cause or "")
        await finish(made)

    run(main())


@pytest.mark.requirement("A3")
def test_batches_have_no_more_tokens_than_their_device_has_room_for() -> None:
    """1 MiB a token, 1,900 of 3,000 MiB in use, the door refuses at 90 %: 800 tokens are safe, and none is above."""

    async def main() -> None:
        workers = SimulatedWorkers()
        readings = {"sim:0": Reading(1900.0 * MIB, 3000.0 * MIB), "host": Reading(1.0, 2.0)}
        made = engine(None, of(is_measured=True), workers=workers, warm_up=WHOLE, readings=lambda: readings)
        await made.start()
        await until_ready(made)
        assert made.safe_tokens("semantic") == 800
        assert max(map(sum, workers.batches)) == 512
        found = made.warm_up("semantic")
        assert found is not None
        assert found.reason == "larger batches would not have had room in memory"
        await made.embed("semantic", texts(64, 100))
        assert max(map(sum, workers.batches)) == 800
        await finish(made)

    run(main())


@pytest.mark.requirement("A3")
def test_a_model_that_comes_takes_its_room_from_those_that_are_there() -> None:
    """The second of two on a device finds 1,000 MiB less: both know of it, the one on another device does not."""

    async def main() -> None:
        free = {"sim:0": [2000.0, 1000.0], "sim:1": [5000.0]}
        seen = {"sim:0": 0, "sim:1": 0}

        def readings() -> dict[str, Reading]:
            here = {name: free[name][min(seen[name], len(free[name]) - 1)] for name in free}
            seen["sim:0"] += 1
            return {name: Reading((9000.0 - mib) * MIB, 10000.0 * MIB) for name, mib in here.items()}

        configs = [
            ModelConfig(name, lambda name=name, device=device: Failing(name, device, is_measured=True))  # type: ignore[misc]
            for name, device in (("semantic", "sim:0"), ("code", "sim:0"))
        ]
        made = engine(None, *configs, workers=SimulatedWorkers(), warm_up=0.5, readings=readings)
        await made.start()
        await until_ready(made)
        assert {name: made.safe_tokens(name) for name in ("semantic", "code")} == {"semantic": 1000, "code": 1000}
        await finish(made)

    run(main())


@pytest.mark.requirement("A3")
def test_the_memory_limit_of_the_manifest_holds_in_the_warm_up_too() -> None:
    """`maxBatchMemoryMiB` 600 at 1 MiB a token: nothing above 600 tokens is run."""

    async def main() -> None:
        workers = SimulatedWorkers()
        made = engine(Batching(max_batch_memory_mib=600), of(is_measured=True), workers=workers, warm_up=WHOLE)
        await made.start()
        await until_ready(made)
        assert max(map(sum, workers.batches)) == 512
        assert made.safe_tokens("semantic") is None
        await finish(made)

    run(main())


@pytest.mark.requirement("A2", "B4")
def test_no_batch_is_measured_that_traffic_may_not_form() -> None:
    """At most 8 inputs and 300 tokens: one long text alone is the largest."""

    async def main() -> None:
        workers = SimulatedWorkers()
        made = engine(Batching(max_batch_size=8, max_batch_tokens=300), workers=workers, warm_up=WHOLE)
        await made.start()
        await until_ready(made)
        ran = shapes(workers)[1:]
        assert all(inputs <= 8 and (inputs == 1 or inputs * length <= 300) for inputs, length in ran)
        assert (1, 512) in ran
        await finish(made)

    run(main())


@pytest.mark.requirement("A3")
def test_what_memory_leaves_is_what_the_door_still_lets_in() -> None:
    """Of 1,000 MiB 600 in use, critical at 90 %: 300; past that less than nothing."""
    assert room_mib(Reading(600.0 * MIB, 1000.0 * MIB), 0.9) == pytest.approx(300.0)
    assert room_mib(Reading(950.0 * MIB, 1000.0 * MIB), 0.9) == pytest.approx(-50.0)


@pytest.mark.requirement("A3")
def test_the_threshold_of_the_manifest_is_the_margin() -> None:
    """`memoryCriticalPercent` 70: of 3,000 MiB, 1,900 in use, 200 tokens at 1 MiB each."""

    async def main() -> None:
        health = Health(memory_warning_percent=60, memory_critical_percent=70)
        readings = {"sim:0": Reading(1900.0 * MIB, 3000.0 * MIB)}
        workers = SimulatedWorkers()
        made = engine(
            Batching(health=health), of(is_measured=True), workers=workers, warm_up=WHOLE, readings=lambda: readings
        )
        await made.start()
        await until_ready(made)
        assert made.safe_tokens("semantic") == 200
        assert max(map(sum, workers.batches)) == 128
        await finish(made)

    run(main())


@pytest.mark.parametrize("vocabulary", [1, 2, 3, 5, 100, 1000, 250_000])
def test_made_texts_are_the_same_always_and_hold_no_special_token(vocabulary: int) -> None:
    """Ids from within the vocabulary, away from both of its ends where it has room."""
    batch = batch_of(Shape(3, 7), vocabulary)
    assert [len(item.token_ids) for item in batch] == [7, 7, 7]
    assert batch == batch_of(Shape(3, 7), vocabulary)
    ids = {token for item in batch for token in item.token_ids}
    spare = min(vocabulary // 4, 110)
    assert spare <= min(ids) <= max(ids) < vocabulary - spare
