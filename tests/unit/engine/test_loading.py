"""Loading models: once, lazily, with a back-off, and never at the cost of the others."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from embedfleet.api import Batching
from embedfleet_server.engine.errors import (
    ModelLoadFailed,
    ModelLoading,
)
from embedfleet_server.engine.protocols import Encoded, Model, Rows
from embedfleet_server.engine.slots import ModelConfig
from tests.support.finishing import finish
from tests.support.simulation import (
    SimulatedModel,
    SimulatedWorkers,
    config,
    engine,
)
from tests.support.virtual_time import run


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
