"""How large batches are: learnt or fixed, within the limits of the manifest and of memory."""

import asyncio
from dataclasses import dataclass

import numpy as np
import pytest

from embedfleet.api import Batching, BatchingSettings, ModelBatching
from embedfleet_server.engine import Engine
from embedfleet_server.engine.protocols import Model
from embedfleet_server.engine.slots import ModelConfig
from tests.support.finishing import finish
from tests.support.simulation import SimulatedModel, SimulatedWorkers, config, engine, text, texts
from tests.support.virtual_time import run


async def flood(made: Engine, inputs: int, requests: int, words: int = 4) -> None:
    """So many requests at once, of as many inputs each."""
    await asyncio.gather(*(made.embed("semantic", texts(inputs, words)) for _ in range(requests)))


def sizes(workers: SimulatedWorkers) -> list[int]:
    return [len(batch) for batch in workers.batches]


@pytest.mark.requirement("A1")
def test_adaptive_starts_at_the_initial_size_and_learns_a_better_one() -> None:
    """Where starting a forward costs 50 inputs' time, batches grow from 32 to beyond 100; nothing was configured."""

    async def main() -> None:
        workers = SimulatedWorkers(start_seconds=0.2, seconds_per_token=0.001)
        made = engine(Batching(max_queued_requests=100_000, item_timeout_seconds=3600), workers=workers)
        await made.start()
        await flood(made, 500, 40)
        ran = sizes(workers)[1:]
        assert ran[0] == 32
        assert np.mean(ran[-20:-1]) > 100
        assert max(ran) <= 256
        assert made.state()["batch_sizes"]["semantic"] > 100
        await finish(made)

    run(main())


@pytest.mark.requirement("A1")
def test_the_latency_target_is_kept() -> None:
    """With `targetBatchMilliseconds` 300 nineteen of twenty batches stay within it, once learnt."""

    async def main() -> None:
        workers = SimulatedWorkers(start_seconds=0.1, seconds_per_token=0.001)
        batching = Batching(max_queued_requests=100_000, item_timeout_seconds=3600, target_batch_milliseconds=300)
        made = engine(batching, workers=workers)
        await made.start()
        await flood(made, 500, 40)
        seconds = [0.1 + 0.001 * 4 * size for size in sizes(workers)[200:]]
        assert np.quantile(seconds, 0.95) <= 0.3
        assert np.mean(seconds) > 0.2
        await finish(made)

    run(main())


@pytest.mark.requirement("A1", "A2")
def test_the_latency_target_is_kept_with_texts_of_many_lengths() -> None:
    """Of 4 to 128 tokens, batched with those of like length: long ones share batches by fewer, and time is made use of.

    Nineteen of twenty batches stay within 300 ms, and half of them take more than 200.
    """

    async def main() -> None:
        workers = SimulatedWorkers(start_seconds=0.1, seconds_per_token=0.0001)
        batching = Batching(max_queued_requests=100_000, item_timeout_seconds=3600, target_batch_milliseconds=300)
        made = engine(batching, workers=workers)
        await made.start()
        await asyncio.gather(*(flood(made, 500, 20, words) for words in (4, 8, 16, 32, 64, 128)))
        seconds = [0.1 + 0.0001 * max(batch) * len(batch) for batch in workers.batches[100:]]
        assert np.quantile(seconds, 0.95) <= 0.3
        assert np.median(seconds) > 0.2
        assert {len(batch) for batch in workers.batches if max(batch) == 4} & {256}
        await finish(made)

    run(main())


@pytest.mark.requirement("A1", "B20")
def test_fixed_keeps_its_size_and_either_can_be_chosen_while_running() -> None:
    """`Fixed` forms batches of 32; a model's own values win over the service's; a change takes hold at once."""

    async def main() -> None:
        workers = SimulatedWorkers()
        batching = Batching(sizing="Fixed", max_queued_requests=100_000)
        made = engine(batching, config("semantic"), workers=workers, own={"semantic": ModelBatching(paused=False)})
        await made.start()
        await flood(made, 320, 1)
        assert sizes(workers)[1:] == [32] * 10
        made.apply(BatchingSettings(batching=batching, models={"semantic": ModelBatching(max_batch_size=64)}))
        await flood(made, 320, 1)
        assert sizes(workers)[11:] == [64] * 5
        made.apply(BatchingSettings(batching=Batching(initial_batch_size=16, max_queued_requests=100_000)))
        await flood(made, 16, 1)
        assert sizes(workers)[16:] == [16]
        await finish(made)

    run(main())


@pytest.mark.requirement("A2", "B23")
def test_batches_that_do_not_fit_into_memory_shrink_the_size() -> None:
    """After an out-of-memory the learnt size falls by a step, besides the token budget."""

    async def main() -> None:
        class Small(SimulatedModel):
            def forward(self, batch):  # type: ignore[no-untyped-def]
                if len(batch) > 20:
                    raise MemoryError
                return super().forward(batch)

        made = engine(Batching(max_queued_requests=100_000), ModelConfig("semantic", Small), workers=SimulatedWorkers())
        await made.start()
        await made.embed("semantic", [text(2)])
        assert made.state()["batch_sizes"]["semantic"] == 32
        answer = await made.embed("semantic", texts(64, 4))
        assert not answer.errors
        assert made.state()["batch_sizes"]["semantic"] < 32
        await finish(made)

    run(main())


@dataclass
class Measured(SimulatedModel):
    """Takes 1 MiB for each token, its self-test too."""

    last: float | None = None

    def forward(self, batch):  # type: ignore[no-untyped-def]
        self.last = float(max(len(item.token_ids) for item in batch) * len(batch))
        return super().forward(batch)

    def peak_mib(self) -> float | None:
        return self.last


@pytest.mark.requirement("A3")
def test_no_batch_predicted_to_pass_the_memory_limit_is_formed() -> None:
    """At 1 MiB a token a limit of 100 MiB means 100 padded tokens, from the first batch on; without it 32 inputs."""

    async def main() -> None:
        workers = SimulatedWorkers()
        model: Model = Measured()
        made = engine(
            Batching(max_batch_memory_mib=100, sizing="Fixed"), ModelConfig("semantic", lambda: model), workers=workers
        )
        await made.start()
        await flood(made, 64, 2, words=8)
        assert all(len(batch) * max(batch) <= 100 for batch in workers.batches)
        assert max(sizes(workers)) == 12
        made.apply(BatchingSettings(batching=Batching(sizing="Fixed")))
        await flood(made, 64, 1, words=8)
        assert max(sizes(workers)) == 32
        await finish(made)

    run(main())
