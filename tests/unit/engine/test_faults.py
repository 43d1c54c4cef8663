"""What becomes of batches that fail: one bad input, faults that may pass, too little memory, rows not finite."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from embedfleet.api import Batching
from embedfleet_server.engine.faults import OutOfMemory, TransientError
from embedfleet_server.engine.protocols import Encoded, Rows
from embedfleet_server.engine.slots import ModelConfig
from tests.support.finishing import finish
from tests.support.simulation import (
    SimulatedModel,
    SimulatedWorkers,
    engine,
    text,
    texts,
    tokens_of,
    vector_of,
)
from tests.support.virtual_time import run


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
        answer = await made.embed("semantic", texts(64, 8))
        assert not answer.errors
        del workers.batches[:]
        await made.embed("semantic", texts(20, 8))
        assert max(len(batch) * 8 for batch in workers.batches) <= 40
        alone = await made.embed("semantic", [text(50), "short"])
        assert {index: error.code for index, error in alone.errors.items()} == {0: "input_too_large"}
        model.room = 10_000
        for _ in range(1500):
            await made.embed("semantic", [text(8)])
        del workers.batches[:]
        await made.embed("semantic", texts(64, 8))
        assert max(map(len, workers.batches)) > 10
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
