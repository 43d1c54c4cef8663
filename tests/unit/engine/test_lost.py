"""A device that is lost: told at once, by a load or a forward, and asked for nothing more."""

import asyncio
from collections.abc import Sequence

import pytest

from embedfleet.api import Batching
from embedfleet_server.engine.errors import DeviceLost, ModelLoadFailed
from embedfleet_server.engine.protocols import Encoded, Model, Rows
from embedfleet_server.engine.slots import ModelConfig
from embedfleet_server.engine.workers import ThreadWorkers
from tests.support import virtual_time
from tests.support.fake_model import FakeModel
from tests.support.simulation import SimulatedModel, SimulatedWorkers, engine, texts

pytestmark = pytest.mark.requirement("B22")


def test_a_loss_is_heard_before_anyone_else_knows() -> None:
    """From a forward and from a load, on the event loop; other failures are nobody's business here."""
    heard: list[str] = []

    def lost() -> Model:
        raise DeviceLost("while loading")

    def broken() -> Model:
        raise ModelLoadFailed("semantic", "no such file")

    async def main() -> None:
        workers = ThreadWorkers(on_lost=lambda error: heard.append(str(error)))
        model = FakeModel()
        with pytest.raises(DeviceLost):
            await workers.forward(model, model.encode(["LOSE"], ""))
        assert heard == ["CUDA error: an illegal memory access was encountered"]
        with pytest.raises(DeviceLost):
            await workers.load(lost)
        with pytest.raises(ModelLoadFailed):
            await workers.load(broken)
        with pytest.raises(RuntimeError):
            await workers.forward(model, model.encode(["BREAK"], ""))
        assert heard[1:] == ["while loading"]
        workers.close()

    asyncio.run(main())


def test_nothing_is_computed_on_a_lost_device() -> None:
    """The batch is neither halved nor tried again, and what waits is not started: all of it would fail."""

    class Lost(SimulatedModel):
        def forward(self, batch: Sequence[Encoded]) -> Rows:
            if len(batch) > 1:
                raise DeviceLost("illegal address")
            return super().forward(batch)

    async def main() -> None:
        workers = SimulatedWorkers()
        made = engine(Batching(max_batch_size=8), ModelConfig("semantic", Lost), workers=workers)
        await made.start()
        await made.embed("semantic", ["warm"])
        before = len(workers.batches)
        asked = [asyncio.create_task(made.embed("semantic", texts(8, 3))) for _ in range(3)]
        await asyncio.sleep(5)
        assert len(workers.batches) - before == 1
        for task in asked:
            task.cancel()
        await asyncio.wait(asked)
        await made.stop(1)

    virtual_time.run(main())
