"""Scores equal those of sentence-transformers' CrossEncoder for the same directory, alone and in company (S3)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder

from embedfleet_server.engine.errors import BadItems
from embedfleet_server.engine.protocols import Item, Model, Pair
from embedfleet_server.engine.scoring import scores
from embedfleet_server.models import heads, linear, packed
from tests.support.loading import load_any
from tests.support.processors import PACKED_DTYPES
from tests.support.texts import mixed_texts
from tests.support.tiny_tasks import FAMILIES, RERANK, make_reranker

pytestmark = [pytest.mark.requirement("S2"), pytest.mark.requirement("S3")]
Array = NDArray[np.float32]
_TEXTS = mixed_texts(240)
PAIRS: list[Item] = [Pair(query, text) for query, text in zip(_TEXTS[::2], _TEXTS[1::2], strict=True)]
CLOSE = 1e-4
ARCHITECTURES = [*(f"rerank-{family}" for family in FAMILIES), "rerank-mpnet", "rerank-decoder", "rerank-modules"]


def array(rows: object) -> Array:
    assert isinstance(rows, np.ndarray)
    return rows


def in_company(model: Model, pairs: list[Item], prompt: str = "") -> Array:
    """Batches as they come, short and long together."""
    encoded = model.encode(pairs, prompt)
    return np.concatenate([array(model.forward(encoded[start : start + 32])) for start in range(0, len(pairs), 32)])


def alone(model: Model, pairs: list[Item]) -> Array:
    return np.concatenate([array(model.forward([encoded])) for encoded in model.encode(pairs, "")])


def expected(directory: Path, pairs: list[Item], **settings: str) -> Array:
    encoder = CrossEncoder(str(directory), device="cpu")
    texts = [(pair.query, pair.text) for pair in pairs if isinstance(pair, Pair)]
    return np.asarray(encoder.predict(texts, **settings))


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("tiny")
    return lambda name: root / name if (root / name).is_dir() else RERANK[name](root / name)


@pytest.mark.filterwarnings("ignore:Implicit dimension choice for softmax")  # sentence-transformers saves no dim
@pytest.mark.parametrize("name", RERANK)
def test_every_architecture_and_activation(directories: Callable[[str], Path], name: str, layout: str) -> None:
    """Scores within 1e-4, whatever shares the batch, packed and padded."""
    model, wanted = load_any(directories(name)), expected(directories(name), PAIRS)
    assert (model.info.layout == "packed") is (layout != "padded"), model.info.layout_reason
    assert (model.info.task, model.info.native_dimensions) == ("Rerank", 3 if "three" in name else 1)
    for logits in (in_company(model, PAIRS), alone(model, PAIRS)):
        made = scores(logits, model.info.activation)
        assert made.shape == wanted.shape
        assert np.abs(made - wanted).max() <= CLOSE


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_in_bfloat16(directories: Callable[[str], Path], name: str, layout: str) -> None:
    """In bfloat16 the order of clearly different scores stays."""
    model, wanted = load_any(directories(name), dtype="BFloat16"), expected(directories(name), PAIRS)
    assert (model.info.layout == "packed") is (layout != "padded"), model.info.layout_reason
    made = scores(in_company(model, PAIRS), model.info.activation)
    assert np.corrcoef(made, wanted)[0, 1] >= 0.999


@pytest.mark.parametrize("dtype", PACKED_DTYPES)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_fused_layers_give_the_same(
    directories: Callable[[str], Path], name: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With linear layers packed whatever is faster here, so that layers of BERT's kind are fused."""
    monkeypatch.setattr(linear, "_is_worth_it", lambda _: True)
    model, wanted = load_any(directories(name), dtype=dtype), expected(directories(name), PAIRS)
    made = scores(in_company(model, PAIRS), model.info.activation)
    assert model.info.layout == "packed", model.info.layout_reason
    assert np.abs(made - wanted).max() <= (CLOSE if dtype == "Float32" else 0.05)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (lambda row: row.flip(1), "its scores are up to"),
        (lambda row: row.new_zeros(row.shape), "its scores are up to"),
        (lambda row: row[:-1], "its scores are an array of (7, 1) for (8, 1)"),
        (lambda row: row[:, :, :3], "RuntimeError"),
    ],
)
def test_scores_that_are_wrong_leave_it_padded(
    directories: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    wrong: Callable[[torch.Tensor], torch.Tensor],
    why: str,
) -> None:
    """Where the head gives other scores for packed tokens than for padded ones, the padded form serves, and says so."""
    right = heads.Head.forward

    def given(self: heads.Head, features: heads.Features) -> heads.Features:
        return right(self, {**features, "token_embeddings": wrong(features["token_embeddings"])})

    monkeypatch.setattr(heads.Head, "forward", given)
    model = load_any(directories("rerank-bert"))
    assert model.info.layout_reason.startswith(f"BertModel cannot be packed: {why}")
    made = scores(in_company(model, PAIRS), model.info.activation)
    assert np.abs(made - expected(directories("rerank-bert"), PAIRS)).max() <= CLOSE


def test_token_types_that_are_lost_leave_it_padded(
    directories: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial tells queries and texts apart as the tokenizer does."""
    right = packed.Packed.__call__
    monkeypatch.setattr(
        packed.Packed, "__call__", lambda self, texts, types=None, seen=None, form=None: right(self, texts)
    )
    model = load_any(directories("rerank-bert"))
    assert "cannot be packed: a cosine of" in model.info.layout_reason
    made = scores(in_company(model, PAIRS), model.info.activation)
    assert np.abs(made - expected(directories("rerank-bert"), PAIRS)).max() <= CLOSE


def test_raw_scores_are_the_logits(directories: Callable[[str], Path]) -> None:
    """One batch serves raw and activated scores."""
    logits = in_company(load_any(directories("rerank-bert")), PAIRS)
    raw = expected(directories("rerank-raw"), PAIRS)
    assert np.abs(scores(logits, "Identity") - raw).max() <= CLOSE
    assert (raw < 0).any()
    assert not np.allclose(scores(logits, "Sigmoid"), raw, atol=1e-2)


def test_a_prompt_is_put_before_the_query(tmp_path: Path) -> None:
    """Before the query alone."""
    directory = make_reranker(tmp_path / "tiny", prompts={"query": "find: "})
    model = load_any(directory)
    made = scores(in_company(model, PAIRS, model.info.prompts["query"]), model.info.activation)
    assert np.abs(made - expected(directory, PAIRS, prompt_name="query")).max() <= CLOSE
    assert not np.allclose(made, expected(directory, PAIRS), atol=1e-3)


def test_the_longer_text_is_cut_first(directories: Callable[[str], Path]) -> None:
    """Pairs longer than the model takes are cut as sentence-transformers cuts them, and say so."""
    model = load_any(directories("rerank-bert"))
    pairs: list[Item] = [
        Pair("short query", "self return " * 60),
        Pair("self return " * 60, "short text"),
        Pair("self " * 50, "raise " * 50),
    ]
    assert [one.truncated for one in model.encode(pairs, "")] == [True] * 3
    made = scores(in_company(model, pairs), model.info.activation)
    assert np.abs(made - expected(directories("rerank-bert"), pairs)).max() <= CLOSE


def test_query_and_text_are_told_apart(directories: Callable[[str], Path]) -> None:
    """The tests above can fail: swapped, a pair has another score."""
    model = load_any(directories("rerank-bert"))
    swapped: list[Item] = [Pair(pair.text, pair.query) for pair in PAIRS if isinstance(pair, Pair)]
    assert not np.allclose(in_company(model, PAIRS), in_company(model, swapped), atol=1e-2)


def test_only_pairs_are_scored(directories: Callable[[str], Path]) -> None:
    """Texts and token ids are named as bad, and pairs that are no Unicode."""
    model = load_any(directories("rerank-bert"))
    with pytest.raises(BadItems) as caught:
        model.encode(["a text", PAIRS[0], [1, 2], Pair("fine", "\ud800")], "")
    assert [error.index for error in caught.value.errors] == [0, 2, 3]
    assert "pair" in caught.value.errors[0].message
    assert "surrogate" in caught.value.errors[2].message
