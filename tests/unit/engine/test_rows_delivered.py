"""Sparse, multi-vector and rerank rows reach those who asked, as dense ones do."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from embedfleet.api import Batching
from embedfleet_server.engine.errors import ModelLoadFailed
from embedfleet_server.engine.protocols import Encoded, Item, Model, ModelInfo, Pair, Side
from embedfleet_server.engine.rows import AnyRows, Ragged, SparseRows
from embedfleet_server.engine.slots import ModelConfig
from embedfleet_server.engine.tokenizing import Tokenizing
from tests.support.finishing import finish
from tests.support.simulation import SimulatedModel, SimulatedWorkers, engine, tokens_of, vector_of
from tests.support.virtual_time import run

pytestmark = pytest.mark.requirement("S3")


class Sparse(SimulatedModel):
    """The simulated vector as sparse rows; NaN for texts that hold `nan`."""

    @property
    def info(self) -> ModelInfo:
        return replace(super().info, task="Sparse")

    def forward(self, batch: Sequence[Encoded]) -> AnyRows:  # type: ignore[override]
        return SparseRows.of(np.stack([_vector(item) for item in batch]))


class Late(SimulatedModel):
    """As many times the simulated vector as there are tokens; NaN for texts that hold `nan`."""

    @property
    def info(self) -> ModelInfo:
        return replace(super().info, task="MultiVector")

    def forward(self, batch: Sequence[Encoded]) -> AnyRows:  # type: ignore[override]
        return Ragged.of([np.stack([_vector(item)] * len(item.token_ids)) for item in batch])


class Rerank(SimulatedModel):
    """The simulated vector of a pair's texts as its logits."""

    @property
    def info(self) -> ModelInfo:
        return replace(super().info, task="Rerank")

    def encode(
        self, items: Sequence[Item], prompt: str, input_type: str | None = None, side: Side | None = None
    ) -> list[Encoded]:
        pairs = [item for item in items if isinstance(item, Pair)]
        assert len(pairs) == len(items)
        return [Encoded(tokens_of(f"{prompt}{pair.query} {pair.text}")) for pair in pairs]


class Liar(Late):
    """Says it is sparse."""

    @property
    def info(self) -> ModelInfo:
        return replace(super().info, task="Sparse")


def _vector(item: Encoded) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return vector_of(item.token_ids) * (np.nan if tokens_of("nan")[0] in item.token_ids else 1)


def texts_of(word: str) -> list[str]:
    """Requests of several lengths, so that batches mix them."""
    return [f"{word}{i} " + "again " * (i % 4) for i in range(40)]


@pytest.mark.parametrize("kind", [Sparse, Late])
@pytest.mark.requirement("B9")
def test_each_request_gets_its_own_rows(kind: type[SimulatedModel]) -> None:
    """Cut over batches and mixed with others; the input that is not finite fails alone, its row empty."""

    async def main() -> None:
        made = engine(Batching(max_batch_size=16), ModelConfig("semantic", kind), workers=SimulatedWorkers())
        await made.start()
        asked = [[*texts_of("a"), "nan"], texts_of("b"), texts_of("c")]
        answers = await asyncio.gather(*(made.embed("semantic", texts) for texts in asked))
        for texts, answer in zip(asked, answers, strict=True):
            assert list(answer.errors) == ([40] if "nan" in texts else [])
            assert len(answer.rows) == len(texts)
            for index, text in enumerate(texts[:40]):
                ids = tokens_of(text)
                wanted = {Sparse: vector_of(ids), Late: np.stack([vector_of(ids)] * len(ids))}[kind]
                row = answer.rows.row(index)
                assert np.array_equal(row[1] if isinstance(row, tuple) else row, wanted)
        row = answers[0].rows.row(40)
        assert len(row[1] if isinstance(row, tuple) else row) == 0
        assert made.stats().failed == 1
        await finish(made)

    run(main())


def test_pairs_are_scored() -> None:
    """A reranker's self-test is a pair, and so are its inputs."""

    async def main() -> None:
        made = engine(Batching(), ModelConfig("semantic", Rerank), workers=SimulatedWorkers())
        await made.start()
        answer = await made.embed("semantic", [Pair("q", f"t{i}") for i in range(5)])
        assert np.array_equal(answer.rows, np.stack([vector_of(tokens_of(f"q t{i}")) for i in range(5)]))
        await finish(made)

    run(main())


def test_rows_of_another_kind_fail_the_load() -> None:
    """The self-test names what came and what was due."""

    async def main() -> None:
        made = engine(Batching(), ModelConfig("semantic", Liar), workers=SimulatedWorkers())
        with pytest.raises(ModelLoadFailed, match="its self-test gave Ragged where SparseRows was due"):
            await made.embed("semantic", ["text"])
        await finish(made)

    run(main())


class Seen(SimulatedWorkers):
    """Notes each call to encode."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[int, str | None]] = []

    async def encode(
        self,
        model: Model,
        items: Sequence[Item],
        prompt: str,
        input_type: str | None = None,
        side: Side | None = None,
    ) -> list[Encoded]:
        self.calls.append((len(items), input_type))
        return await super().encode(model, items, prompt, input_type, side)


def test_queries_and_documents_are_not_tokenised_in_one_call() -> None:
    """Requests that wait share a call only where they are of one input type, whatever their prompt."""

    async def main() -> None:
        workers, model = Seen(), Late()
        tokenizing = Tokenizing(workers, calls_at_once=1)
        kinds = ["query", "query", "document", None]
        await asyncio.gather(*(tokenizing.encode(model, ["text"], "", kind) for kind in kinds))
        assert workers.calls == [(2, "query"), (1, "document"), (1, None)]
        await tokenizing.close()

    run(main())
