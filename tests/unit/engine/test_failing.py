"""A model whose batches fail is refused at once with the cause, probed, and served again once it is well."""

import asyncio
from collections.abc import Sequence

import pytest

from embedfleet.api import Batching, BatchingSettings, Health
from embedfleet_server.engine import Engine
from embedfleet_server.engine.errors import ModelFailing
from embedfleet_server.engine.protocols import Encoded, Rows
from embedfleet_server.engine.slots import ModelConfig
from tests.support.finishing import finish
from tests.support.simulation import SimulatedModel, SimulatedWorkers, config, engine, text
from tests.support.virtual_time import run

BATCHING = Batching(max_retries=0, health=Health(failing_percent=50, probe_after_seconds=5))


class Sick(SimulatedModel):
    """Fails as long as it is `sick`."""

    sick = True

    def forward(self, batch: Sequence[Encoded]) -> Rows:
        if self.sick and len(batch[0].token_ids) != 9:  # but for the self-test
            raise RuntimeError("an ECC error")
        return super().forward(batch)


async def started(model: SimulatedModel, workers: SimulatedWorkers, batching: Batching = BATCHING) -> Engine:
    made = engine(batching, ModelConfig("semantic", lambda: model), config("code"), workers=workers)
    await made.start()
    return made


async def fail(made: Engine, times: int) -> None:
    """So many batches of one input each, one after the other."""
    for _ in range(times):
        answer = await made.embed("semantic", [text(3)])
        assert answer.errors[0].code == "forward_failed"


@pytest.mark.requirement("H2", "B13")
def test_failing_batches_are_told_of_sparingly(caplog: pytest.LogCaptureFixture) -> None:
    """Of a hundred failures a second ten are told, one by one; the next line says how many were left out."""

    async def main() -> None:
        made = await started(Sick(), SimulatedWorkers(), Batching(max_retries=0, health=Health(failing_percent=100)))
        await fail(made, 150)
        await finish(made)

    run(main())
    lines = [record.getMessage() for record in caplog.records if "a batch of" in record.getMessage()]
    assert len(lines) == 20
    assert [line for line in lines if "left_out" in line] == [lines[10]]
    assert int(lines[10].rpartition("=")[2]) > 80


@pytest.mark.requirement("H2")
def test_a_failing_model_is_refused_with_the_cause_and_others_go_on() -> None:
    """After ten failed batches the eleventh request never reaches the device; the other model answers."""

    async def main() -> None:
        workers = SimulatedWorkers()
        made = await started(Sick(), workers)
        await fail(made, 10)
        ran = len(workers.batches)
        with pytest.raises(ModelFailing, match=r"'semantic'.*RuntimeError: an ECC error") as caught:
            await made.embed("semantic", [text(3)])
        assert 0 < caught.value.retry_after <= 5
        assert len(workers.batches) == ran
        assert not (await made.embed("code", [text(3)])).errors
        assert made.state()["breakers"] == {"semantic": "open", "code": "closed"}
        await finish(made)

    run(main())


@pytest.mark.requirement("H2")
def test_one_batch_probes_and_a_well_model_is_served_again() -> None:
    """After 5 s one batch is tried; it fails, so the next comes after 10 s; that one is well, and all are served."""

    async def main() -> None:
        model, workers = Sick(), SimulatedWorkers()
        made = await started(model, workers)
        await fail(made, 10)
        await asyncio.sleep(5)
        await fail(made, 1)
        await asyncio.sleep(6)
        with pytest.raises(ModelFailing):
            await made.embed("semantic", [text(3)])
        await asyncio.sleep(4)
        model.sick = False
        assert not (await made.embed("semantic", [text(3)])).errors
        answers = await asyncio.gather(*(made.embed("semantic", [text(3)]) for _ in range(20)))
        assert not any(answer.errors for answer in answers)
        await finish(made)

    run(main())


@pytest.mark.requirement("H2")
def test_what_was_accepted_before_waits_for_the_probe() -> None:
    """Inputs queued when the breaker opens are not lost: the probe carries the first, and the rest follow it."""

    async def main() -> None:
        model, workers = Sick(), SimulatedWorkers()
        made = await started(model, workers, BATCHING.model_copy(update={"max_batch_size": 1, "sizing": "Fixed"}))
        await made.embed("code", [text(1)])
        asked = [asyncio.create_task(made.embed("semantic", [text(3)])) for _ in range(15)]
        await asyncio.sleep(1)
        assert sum(task.done() for task in asked) == 10
        model.sick = False
        answers = await asyncio.gather(*asked)
        assert [bool(answer.errors) for answer in answers] == [True] * 10 + [False] * 5
        await finish(made)

    run(main())


@pytest.mark.requirement("H2")
def test_one_bad_input_among_many_opens_nothing() -> None:
    """A poisoned input in each of thirty requests fails alone each time; the model stays open to all."""

    async def main() -> None:
        class Poisoned(SimulatedModel):
            def forward(self, batch: Sequence[Encoded]) -> Rows:
                if any(len(item.token_ids) == 7 for item in batch):
                    raise RuntimeError("that one")
                return super().forward(batch)

        made = await started(Poisoned(), SimulatedWorkers())
        for _ in range(30):
            answer, well = await asyncio.gather(
                made.embed("semantic", [text(3), text(7), text(3)]), made.embed("semantic", [text(2)])
            )
            assert list(answer.errors) == [1]
            assert not well.errors
            await made.embed("semantic", [text(4)])
        await finish(made)

    run(main())


@pytest.mark.requirement("H2", "B20")
def test_the_thresholds_change_while_running() -> None:
    """With `failingPercent` 100 nothing is ever refused for failing; set back to 50, the model is."""

    async def main() -> None:
        made = await started(Sick(), SimulatedWorkers(), Batching(max_retries=0, health=Health(failing_percent=100)))
        await fail(made, 15)
        made.apply(BatchingSettings(batching=BATCHING))
        await fail(made, 1)
        with pytest.raises(ModelFailing):
            await made.embed("semantic", [text(3)])
        await finish(made)

    run(main())
