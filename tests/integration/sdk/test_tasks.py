"""The other tasks through the client, against the real server with small models of every task."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from embedfleet import AsyncService, Service, errors
from embedfleet.tasks import Token
from tests.support.fake_model import token_ids, vector, vectors
from tests.support.fake_tasks import EVERY_TASK, late, logits
from tests.support.served import Served, run, serving

TEXTS = [f"text number {number}" for number in range(300)]


def url(served: Served) -> str:
    """Its address."""
    return f"http://{served.host}:{served.port}"


def test_rerank_in_several_requests() -> None:
    """Scores are the model's, the best first, though the texts went in parts; top_n and raw_scores act."""

    async def main() -> None:
        async with serving(EVERY_TASK, default_model="semantic") as served, AsyncService(url(served)) as service:
            expected = 1 / (1 + np.exp(-logits("which", TEXTS)))
            found = await service.rerank("which", TEXTS)
            assert sorted(one.index for one in found) == list(range(300))
            assert [one.score for one in found] == pytest.approx(sorted(expected, reverse=True), rel=1e-5)
            assert all(one.text == TEXTS[one.index] for one in found)
            best = await service.rerank("which", iter(TEXTS), model="rerank", top_n=3, raw_scores=True)
            assert [one.index for one in best] == [one.index for one in found[:3]]
            assert best[0].score == pytest.approx(float(logits("which", TEXTS).max()), rel=1e-5)
            assert await service.rerank("which", []) == []

    run(main())


def test_sparse_and_token_vectors() -> None:
    """Arrays of several answers are put together; rows, dense form and SciPy's agree with the model."""

    async def main() -> None:
        async with serving(EVERY_TASK, default_model="semantic") as served, AsyncService(url(served)) as service:
            sparse = await service.embed_sparse(TEXTS)
            expected = np.maximum(vectors(TEXTS), 0)
            assert np.array_equal(sparse.to_dense(), expected)
            assert len(sparse) == 300
            assert sparse[-1] == {i: float(v) for i, v in enumerate(expected[-1]) if v > 0}
            assert np.array_equal(sparse.to_scipy().toarray(), expected)
            many = await service.embed_multi(TEXTS, input_type="document")
            assert [rows.shape for rows in many] == [(3, 8)] * 300
            assert np.array_equal(many[17], late(TEXTS[17]))
            with pytest.raises(IndexError, match="row 300 of 300"):
                many[300]

    run(main())


def test_similarity_and_tokens() -> None:
    """Cosines stand in the order of the texts; tokens tell where they stand; the special one can be left out."""

    async def main() -> None:
        async with serving(EVERY_TASK, default_model="semantic") as served, AsyncService(url(served)) as service:
            cosines = await service.similarity("text number 5", TEXTS)
            assert cosines.dtype == np.float32
            assert cosines == pytest.approx(vectors(TEXTS) @ vector(token_ids("text number 5")), abs=1e-5)
            assert int(cosines.argmax()) == 5
            (tokens,) = await service.tokenize(["two words"], special_tokens=False)
            assert [(one.text, one.start, one.stop, one.special) for one in tokens] == [
                ("two", 0, 3, False), ("words", 4, 9, False),
            ]  # fmt: skip
            assert (await service.tokenize(["two words"]))[0][0] == Token(994, "[FIRST]", True, None, None)

    run(main())


def test_what_is_wrong_is_told() -> None:
    """A model of another task, one that is not there, a bad text with its place in the call, and no text at all."""

    async def main() -> None:
        async with serving(EVERY_TASK, default_model="semantic") as served, AsyncService(url(served)) as service:
            with pytest.raises(errors.RequestRejected, match="is for Dense: ask it at /v1/embeddings"):
                await service.rerank("which", TEXTS, model="semantic")
            with pytest.raises(errors.ModelNotFound, match="no/model"):
                await service.embed_sparse(["a"], model="no/model")
            with pytest.raises(errors.BadInput, match=r"texts\[290\]: is empty"):
                await service.embed_sparse([*TEXTS[:290], ""])
            with pytest.raises(errors.BadInput, match=r"texts\[1\]: is None"):
                await service.rerank("which", ["a", None])  # type: ignore[list-item]  # that is the mistake
            with pytest.raises(errors.BadInput, match="query is None"):
                await service.rerank(None, ["a"])  # type: ignore[arg-type]  # that is the mistake
            with pytest.raises(errors.BadInput, match="texts is empty"):
                await service.embed_multi([])
            with pytest.raises(errors.BadInput, match="top_n is 0"):
                await service.rerank("which", ["a"], top_n=0)
            with pytest.raises(errors.BadInput, match="lone surrogate"):
                await service.tokenize(["\ud800"])

    run(main())


@pytest.mark.requirement("K3")
def test_the_real_server_sets_bad_texts_aside_and_tells_which_were_cut() -> None:
    """Empty texts and rows without a number cost no other; a text of 100,000 characters is said to be truncated."""
    texts = ["fine", "", "NOTFINITE", "word " * 20_000, "also fine"]

    async def main() -> None:
        async with serving() as served, AsyncService(url(served)) as service:
            result = await service.embed(texts, on_error="collect")
            assert [one.index for one in result.errors] == [1, 2]
            assert "is empty" in str(result.errors[0])
            assert result.truncated == (3,)
            assert np.array_equal(result.array[[0, 3, 4]], vectors([texts[0], texts[3], texts[4]]))
            assert np.isnan(result.array[[1, 2]]).all()
            assert result.fingerprint == "f" * 64
            assert result.tokens > 0
            with pytest.raises(errors.BadInput, match=r"texts\[1\]: is empty"):
                await service.embed(texts)

    run(main())


def test_the_synchronous_twins() -> None:
    """Every task has its synchronous form, with the same answers."""

    def ask(address: str) -> None:
        with Service(address) as service:
            assert [one.index for one in service.rerank("which", TEXTS[:3], top_n=2)]
            assert len(service.embed_sparse(TEXTS[:3])) == 3
            assert len(service.embed_multi(TEXTS[:3])) == 3
            assert service.similarity("a", TEXTS[:3]).shape == (3,)
            assert len(service.tokenize(TEXTS[:3])[0]) == 4
            assert np.array_equal(service.embed_query("a"), vectors(["a"], "query: ")[0])
            assert service.model_info("late").task == "MultiVector"

    async def main() -> None:
        async with serving(EVERY_TASK, default_model="semantic") as served:
            await asyncio.to_thread(ask, url(served))

    run(main())


def test_the_typed_sample_runs(tmp_path: Path) -> None:
    """What mypy is told of in `typed_sample` is what comes at run time."""
    from tests.support.typed_sample import sample

    async def main() -> None:
        async with serving(EVERY_TASK, default_model="semantic") as served:
            await asyncio.to_thread(sample, url(served), tmp_path)

    run(main())
