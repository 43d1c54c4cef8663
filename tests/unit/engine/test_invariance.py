"""`batching.deterministic` on its way to a model: live, at load, for one model, and past the cache."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from embedfleet.api import Batching, BatchingSettings, ModelBatching
from embedfleet_server.engine.invariance import Bits
from embedfleet_server.engine.protocols import Encoded, Rows
from embedfleet_server.engine.slots import ModelConfig
from tests.support.fake_model import FakeModel
from tests.support.finishing import finish
from tests.support.simulation import engine
from tests.support.virtual_time import run

pytestmark = pytest.mark.requirement("B20")


class Keeping(FakeModel):
    """Its rows are 1 where it was asked to keep their bits, else 0."""

    on = False

    def keep_bits(self, on: bool) -> None:
        self.on = on

    def bits_kept(self) -> str | None:
        return "as a test does" if self.on else None

    def forward(self, batch: Sequence[Encoded]) -> Rows:
        return np.full((len(batch), self.info.native_dimensions), float(self.on), np.float32)


def config(name: str) -> ModelConfig:
    return ModelConfig(name, lambda: Keeping(name))


def settings(**models: bool) -> BatchingSettings:
    """With values for single models."""
    own = {name: ModelBatching(deterministic=on) for name, on in models.items()}
    return BatchingSettings(batching=Batching(vector_cache_mib=1), models=own)


def test_a_change_is_live_and_nothing_from_before_is_answered() -> None:
    """Not what was kept in the cache, either way; for the model that it is for, and no other."""

    async def main() -> None:
        made = engine(Batching(vector_cache_mib=1), config("a"), config("b"))
        await made.start()

        async def value(model: str) -> float:
            return float((await made.embed(model, ["x"])).rows[0, 0])

        found = [await value("a")]
        for on in (True, False, True):
            made.apply(settings(a=on))
            found += [await value("a"), await value("b")]
        assert found == [0, 1, 0, 0, 0, 1, 0]
        a, b = made.models()
        assert (a.deterministic, a.deterministic_reason) == (True, "as a test does")
        assert (b.deterministic, b.deterministic_reason) == (False, None)
        await finish(made)

    run(main())


def test_a_model_that_is_loaded_later_is_told() -> None:
    """Before its first forward, which is the engine's own."""

    async def main() -> None:
        seen: list[bool] = []

        class Noting(Keeping):
            def forward(self, batch: Sequence[Encoded]) -> Rows:
                seen.append(self.on)
                return super().forward(batch)

        made = engine(Batching(deterministic=True), ModelConfig("a", lambda: Noting("a"), lazy=True))
        await made.start()
        await asyncio.gather(made.embed("a", ["x"]), made.embed("a", ["y"]))
        assert set(seen) == {True}
        await finish(made)

    run(main())


def test_a_model_that_cannot_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """In its status and in the log; what it is asked for it answers."""
    bits = Bits()
    bits.ask(FakeModel(), True)
    assert bits.kept(FakeModel()) == (False, "it has no such form")
    assert "model semantic cannot be asked for the same bits in any company" in caplog.text


def test_what_a_clock_chose_is_said() -> None:
    """A restart may choose otherwise, and how to have the same then."""
    bits = Bits()
    model = Keeping(by_clock=("its precision, float32",))
    bits.ask(model, True)
    assert bits.kept(model) == (
        True,
        "as a test does; at load a clock chose its precision, float32: start with deterministic set to have the same "
        "after each start",
    )
