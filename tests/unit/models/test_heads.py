"""What a reranker's transformer computes above its base."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer

from embedfleet_server.models.heads import apart, batch, head
from tests.support.tiny_models import make_bert
from tests.support.tiny_tasks import make_reranker

pytestmark = pytest.mark.requirement("S2")
TEXTS = [[5, 9, 12, 7], [5, 30, 31, 32, 33, 34, 7], [6, 7]]
Loads = Callable[..., Any]


@pytest.fixture
def transformer(tmp_path: Path) -> Loads:
    """Loads a tiny reranker's transformer."""

    def loaded(**settings: Any) -> Any:
        return CrossEncoder(str(make_reranker(tmp_path / "tiny", **settings)), device="cpu").eval()[0]

    return loaded


@torch.inference_mode()
@pytest.mark.parametrize(
    "settings",
    [
        {"family": "bert", "labels": 3},
        {"family": "xlm-roberta"},
        {"family": "distil-bert"},
        {"family": "modern-bert"},
        {"family": "modern-bert", "classifier_pooling": "mean"},
        {"family": "mpnet"},
        {"family": "decoder", "labels": 2},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_base_and_head_give_what_the_whole_gives(transformer: Loads, settings: dict[str, Any]) -> None:
    """To the bit, for texts of different lengths: whatever the head reads of them."""
    whole = transformer(**settings)
    given = batch(TEXTS, whole.model.config.pad_token_id or 0)
    found = head(whole)
    assert found is not None
    expected = whole(dict(given))["scores"]
    made = found({**given, **found.base(dict(given))})["scores"]
    assert made.shape == (len(TEXTS), settings.get("labels", 1))
    assert torch.equal(made, expected)


def test_the_model_stays_whole(transformer: Loads) -> None:
    """Its base is in its place after the head was made, and gives the same."""
    whole = transformer()
    base, given = whole.model.bert, batch(TEXTS, 0)
    before = whole(dict(given))["scores"]
    assert head(whole) is not None
    assert whole.model.bert is base
    assert torch.equal(whole(dict(given))["scores"], before)


def test_the_head_holds_no_weights_of_the_base(transformer: Loads) -> None:
    """Only the pooler's and its own, and these are not copies."""
    whole = transformer()
    found = head(whole)
    assert found is not None
    own = {id(parameter) for parameter in found._above.parameters()}
    pooler, classifier = whole.model.bert.pooler, whole.model.classifier
    assert own == {id(parameter) for module in (pooler, classifier) for parameter in module.parameters()}


def test_what_has_no_head_of_its_own(tmp_path: Path) -> None:
    """A transformer that gives its tokens' vectors, and what is none."""
    assert head(SentenceTransformer(str(make_bert(tmp_path / "tiny")), device="cpu")[0]) is None
    assert head(torch.nn.Linear(2, 2)) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_are_compared_by_the_largest(dtype: torch.dtype) -> None:
    """Half precision may be further apart; another shape, and what is no number, is never the same."""
    expected = torch.tensor([[8.0], [-4.0], [0.5]], dtype=dtype)
    assert apart(expected.clone(), expected) is None
    near = expected + torch.tensor([[0.0], [0.0], [0.25]], dtype=dtype)
    assert (apart(near, expected) is None) is (dtype == torch.bfloat16)
    assert "apart from" in str(apart(expected + 2, expected))
    assert "an array of (2, 1) for (3, 1)" in str(apart(expected[:2], expected))
    assert "apart from" in str(apart(expected * torch.nan, expected))


def test_a_batch_is_padded_on_the_right() -> None:
    """With the model's own token, which a decoder's head knows padding by."""
    made = batch([[5, 6, 7], [8]], 9)
    assert made["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert made["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert set(made) == {"input_ids", "attention_mask"}
