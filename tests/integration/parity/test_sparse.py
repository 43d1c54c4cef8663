"""Sparse rows equal those of sentence-transformers' SparseEncoder for the same directory, alone and in company (S3)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sentence_transformers import SparseEncoder

from embedfleet_server.engine.protocols import Model
from embedfleet_server.engine.rows import SparseRows
from tests.support.loading import load_any
from tests.support.texts import mixed_texts
from tests.support.tiny_models import PROMPTS
from tests.support.tiny_tasks import SPARSE, make_auto_encoder, make_inference_free, make_sparse

pytestmark = [pytest.mark.requirement("S2"), pytest.mark.requirement("S3")]
Array = NDArray[np.float32]
TEXTS = mixed_texts(120)
FLOAT32, BFLOAT16 = 0.99999, 0.999


def cosines(left: Array, right: Array) -> Array:
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return np.asarray((left * right).sum(axis=1) / lengths)


def in_company(model: Model, texts: list[str], prompt: str = "") -> SparseRows:
    """Batches as they come, short and long together."""
    encoded = model.encode(texts, prompt)
    return SparseRows.join([sparse(model.forward(encoded[start : start + 32])) for start in range(0, len(texts), 32)])


def alone(model: Model, texts: list[str], prompt: str = "") -> SparseRows:
    return SparseRows.join([sparse(model.forward([encoded])) for encoded in model.encode(texts, prompt)])


def sparse(rows: object) -> SparseRows:
    assert isinstance(rows, SparseRows)
    return rows


def expected(directory: Path, texts: list[str], prompt: str | None = None) -> Array:
    encoder = SparseEncoder(str(directory), device="cpu")
    made: Array = encoder.encode(texts, prompt=prompt, convert_to_sparse_tensor=False).numpy()
    return made


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("tiny")
    return lambda name: root / name if (root / name).is_dir() else SPARSE[name](root / name)


@pytest.mark.parametrize("name", SPARSE)
def test_every_architecture_and_pooling(directories: Callable[[str], Path], name: str, layout: str) -> None:
    """The same active dimensions and the same values, whatever shares the batch, packed where it can be and padded."""
    model, wanted = load_any(directories(name)), expected(directories(name), TEXTS)
    assert (model.info.layout == "packed") is (layout != "padded"), model.info.layout_reason
    assert (model.info.task, model.info.native_dimensions) == ("Sparse", wanted.shape[1])
    for rows in (in_company(model, TEXTS), alone(model, TEXTS)):
        assert np.array_equal(rows.dense() != 0, wanted != 0)
        assert np.allclose(rows.dense(), wanted, rtol=1e-4, atol=1e-4)
        assert cosines(rows.dense(), wanted).min() >= FLOAT32


@pytest.mark.parametrize("name", ["splade-bert", "splade-modern-bert"])
def test_in_bfloat16(directories: Callable[[str], Path], name: str) -> None:
    """In bfloat16: cosine ≥ 0.999 to the float32 of sentence-transformers."""
    rows = in_company(load_any(directories(name), dtype="BFloat16"), TEXTS)
    assert cosines(rows.dense(), expected(directories(name), TEXTS)).min() >= BFLOAT16


def test_a_prompt_is_put_before_the_text(tmp_path: Path) -> None:
    """Queries and documents of one batch, each with its prompt."""
    directory = make_sparse(tmp_path / "tiny", prompts=PROMPTS)
    model, encoder = load_any(directory), SparseEncoder(str(directory), device="cpu")
    texts = TEXTS[:30]
    prompts = [model.info.prompts[name] for name in ("query", "document")]
    rows = sparse(model.forward([one for prompt in prompts for one in model.encode(texts, prompt)])).dense()
    queries, documents = encoder.encode_query(texts).to_dense(), encoder.encode_document(texts).to_dense()
    assert np.allclose(rows, np.concatenate([queries.numpy(), documents.numpy()]), atol=1e-4)
    assert not np.allclose(rows[:30], rows[30:], atol=1e-2)


def test_a_prompt_that_the_pooling_leaves_out(tmp_path: Path) -> None:
    """A sparse auto-encoder pools as a dense model does."""
    directory = make_auto_encoder(tmp_path / "tiny", include_prompt=False)
    rows = in_company(load_any(directory), TEXTS[:30], PROMPTS["query"])
    assert np.allclose(rows.dense(), expected(directory, TEXTS[:30], PROMPTS["query"]), atol=1e-4)


def test_a_masked_language_model_is_sparse_when_asked(tmp_path: Path) -> None:
    """Without modules.json its files leave open which task it is for; sentence-transformers takes the maximum."""
    directory = make_sparse(tmp_path / "tiny")
    wanted = expected(directory, TEXTS[:30])
    bare = tmp_path / "tiny.transformer"
    assert load_any(bare).info.task == "Dense"
    assert np.allclose(in_company(load_any(bare, task="Sparse"), TEXTS[:30]).dense(), wanted, atol=1e-4)


@pytest.mark.parametrize("max_active", [None, 3])
def test_queries_that_are_looked_up(tmp_path: Path, max_active: int | None) -> None:
    """Where queries have a route of their own they may share a batch with documents; None takes the default route."""
    directory = make_inference_free(tmp_path / "tiny", max_active=max_active)
    model, encoder = load_any(directory), SparseEncoder(str(directory), device="cpu")
    texts = [*TEXTS[:40], "self " * 100, "again again again"]
    kinds = ["query", "document", None]
    mixed = [one for group in zip(*(model.encode(texts, "", kind) for kind in kinds), strict=True) for one in group]
    rows = sparse(model.forward(mixed)).dense()
    wanted = [encode(texts).to_dense().numpy() for encode in (encoder.encode_query, encoder.encode_document)]
    for place, made in enumerate([*wanted, wanted[1]]):
        assert np.array_equal(rows[place::3] != 0, made != 0)
        assert np.allclose(rows[place::3], made, rtol=1e-4, atol=1e-4)
    assert not np.allclose(wanted[0], wanted[1], atol=1e-2)


def test_parity_can_fail(directories: Callable[[str], Path]) -> None:
    """The sum is not the maximum."""
    rows = in_company(load_any(directories("splade-sum")), TEXTS[:30]).dense()
    assert not np.allclose(rows, expected(directories("splade-bert"), TEXTS[:30]), atol=1e-1)
