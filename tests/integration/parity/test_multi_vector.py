"""Vectors of tokens equal those of sentence-transformers' MultiVectorEncoder, alone and in company (S3)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sentence_transformers import MultiVectorEncoder

from embedfleet_server.engine.errors import ModelLoadFailed
from embedfleet_server.engine.protocols import Model
from embedfleet_server.engine.rows import Ragged
from embedfleet_server.models import segments
from tests.support.loading import load_any
from tests.support.texts import mixed_texts
from tests.support.tiny_tasks import LATE_WIDTH, MULTI_VECTOR, make_multi_vector

pytestmark = [pytest.mark.requirement("S2"), pytest.mark.requirement("S3")]
Array = NDArray[np.float32]
TEXTS = [*mixed_texts(80), "one, two; three.", "short", "What is it? (this)"]
FLOAT32, BFLOAT16 = 0.99999, 0.999
TYPES = [None, "query", "document"]
HIDING = ["late-fixed", "late-fixed-xlm-roberta", "late-least", "pylate", "pylate-untyped", "stanford"]
"""Whose queries are filled up with tokens that the others do not see."""


def cosines(left: Array, right: Array) -> Array:
    return np.asarray((left * right).sum(axis=1) / (np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)))


def ragged(rows: object) -> Ragged:
    assert isinstance(rows, Ragged)
    return rows


def prompt_of(model: Model, input_type: str | None) -> str:
    return model.info.prompts[input_type] if input_type else ""


def in_company(model: Model, texts: list[str], input_type: str | None) -> Ragged:
    """Batches as they come, short and long together."""
    encoded = model.encode(texts, prompt_of(model, input_type), input_type)
    return Ragged.join([ragged(model.forward(encoded[start : start + 32])) for start in range(0, len(texts), 32)])


def alone(model: Model, texts: list[str], input_type: str | None) -> Ragged:
    encoded = model.encode(texts, prompt_of(model, input_type), input_type)
    return Ragged.join([ragged(model.forward([one])) for one in encoded])


def expected(directory: Path, texts: list[str], input_type: str | None) -> list[Array]:
    """Text by text: sentence-transformers' own attention to a masked neighbour may depend on who shares its batch."""
    encoder = MultiVectorEncoder(str(directory), device="cpu")
    if input_type == "query":
        return list(encoder.encode_query(texts, convert_to_numpy=True, batch_size=1))
    if input_type == "document":
        return list(encoder.encode_document(texts, convert_to_numpy=True, batch_size=1))
    return list(encoder.encode(texts, convert_to_numpy=True, batch_size=1))


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("tiny")
    return lambda name: root / name if (root / name).is_dir() else MULTI_VECTOR[name](root / name)


@pytest.mark.parametrize("input_type", TYPES)
@pytest.mark.parametrize("name", MULTI_VECTOR)
def test_every_architecture_and_setting(
    directories: Callable[[str], Path], name: str, input_type: str | None, layout: str
) -> None:
    """As many vectors for each input, each with cosine ≥ 0.99999, whatever shares the batch, packed and padded."""
    model, wanted = load_any(directories(name)), expected(directories(name), TEXTS, input_type)
    assert (model.info.layout == "packed") is (layout != "padded"), model.info.layout_reason
    assert (model.info.task, model.info.native_dimensions) == ("MultiVector", LATE_WIDTH)
    for rows in (in_company(model, TEXTS, input_type), alone(model, TEXTS, input_type)):
        assert np.diff(rows.offsets).tolist() == [len(one) for one in wanted]
        assert cosines(rows.vectors, np.concatenate(wanted)).min() >= FLOAT32
        assert np.allclose(rows.vectors, np.concatenate(wanted), atol=1e-4)


@pytest.mark.parametrize("name", ["late-bert", "late-modern-bert"])
def test_in_bfloat16(directories: Callable[[str], Path], name: str) -> None:
    """In bfloat16: cosine ≥ 0.999 to the float32 of sentence-transformers, in the median of tokens."""
    rows = in_company(load_any(directories(name), dtype="BFloat16"), TEXTS, "document")
    wanted = np.concatenate(expected(directories(name), TEXTS, "document"))
    assert np.median(cosines(rows.vectors, wanted)) >= BFLOAT16
    assert np.allclose(np.linalg.norm(rows.vectors, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", HIDING)
def test_hidden_tokens_in_bfloat16(directories: Callable[[str], Path], name: str) -> None:
    """Queries that are filled up, in bfloat16."""
    model = load_any(directories(name), dtype="BFloat16")
    assert model.info.layout == "packed"
    wanted = np.concatenate(expected(directories(name), TEXTS, "query"))
    assert np.median(cosines(in_company(model, TEXTS, "query").vectors, wanted)) >= BFLOAT16


def test_hidden_tokens_that_are_seen_leave_it_padded(
    directories: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the packed form does not hide them the trial notices, and the padded one serves."""
    monkeypatch.setattr(segments, "hiding", lambda row, *_: row)
    model = load_any(directories("late-fixed"))
    assert "cannot be packed: a cosine of" in model.info.layout_reason
    wanted = np.concatenate(expected(directories("late-fixed"), TEXTS, "query"))
    assert cosines(in_company(model, TEXTS, "query").vectors, wanted).min() >= FLOAT32


def test_queries_and_documents_share_a_batch(directories: Callable[[str], Path]) -> None:
    """Each is computed as its kind, and comes back in its place."""
    model = load_any(directories("late-fixed"))
    kinds = ["query", "document"]
    encoded = [model.encode(TEXTS[:20], prompt_of(model, kind), kind) for kind in kinds]
    mixed = [one for pair in zip(*encoded, strict=True) for one in pair]
    rows = ragged(model.forward(mixed))
    for place, kind in enumerate(kinds):
        wanted = expected(directories("late-fixed"), TEXTS[:20], kind)
        for index, vectors in enumerate(wanted):
            assert np.allclose(rows.row(2 * index + place), vectors, atol=1e-4)


def test_a_query_is_no_document(directories: Callable[[str], Path]) -> None:
    """The tests above can fail: without the expansion or with the punctuation there is another number of vectors."""
    model = load_any(directories("late-fixed"))
    counts = [np.diff(in_company(model, TEXTS, input_type).offsets) for input_type in TYPES]
    assert set(counts[1].tolist()) == {16}
    assert (counts[1] != counts[2]).any()


def test_max_tokens_lowers_every_limit(tmp_path: Path) -> None:
    """Queries too; where they are filled up to more than that, the model cannot be served so."""
    directory = make_multi_vector(tmp_path / "tiny", query_length=20, document_length=40)
    model = load_any(directory, max_tokens=12)
    assert model.info.max_tokens == 12
    for input_type in TYPES:
        assert max(len(one.token_ids) for one in model.encode(TEXTS, "", input_type)) == 12
    filled = make_multi_vector(tmp_path / "filled", expansion={"strategy": "fixed", "length": 16})
    with pytest.raises(ModelLoadFailed, match="filled up to 16 tokens, and its longest input has 12"):
        load_any(filled, max_tokens=12)
