"""The models of notebook 07: words that are near are found, special tokens are not, rare words weigh more."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from embedfleet.api import EmbeddingService
from embedfleet.api.pipelines import KnownModel, check
from tests.support.tiny_models import word_piece
from tools.hybrid import MANIFEST, NEAR, SCALE, _once, looked_up, rarity

pytestmark = pytest.mark.requirement("G1", "K4")


def test_logits_tell_how_near_words_are() -> None:
    """For each token and word, wherever the token stands: SCALE * (cosine of their centred rows - NEAR)."""
    table = torch.randn(40, 16, generator=torch.Generator().manual_seed(5))
    ids = torch.tensor([[7, 3, 7]])
    with torch.no_grad():
        logits = looked_up(table, [0, 1])(ids).logits[0]
    rows = torch.nn.functional.normalize(table - table.mean(dim=1, keepdim=True), dim=1)
    expected = SCALE * (rows[ids[0]] @ rows.T - NEAR)
    torch.testing.assert_close(logits[:, 2:], expected[:, 2:], rtol=1e-4, atol=1e-4)
    assert float(logits[:, :2].max()) < 0, "special tokens get no weight"


def test_rare_words_weigh_more() -> None:
    """The less texts hold a word the more it weighs; how often one text does is all the same."""
    tokenizer: Any = word_piece("[CLS]", "[SEP]", "[PAD]", "[UNK]")
    often, once, never = tokenizer.convert_tokens_to_ids(["the", "name", "file"])
    weights = rarity(tokenizer, ["the name", "the the", "the"])
    assert 0 < weights[often] < weights[once] < weights[never]
    assert weights[tokenizer.all_special_ids].tolist() == [0.0] * len(tokenizer.all_special_ids)


def test_the_manifest_is_sound() -> None:
    """By the contract, and by the kinds of value that flow in its graphs."""
    service = EmbeddingService.model_validate(yaml.safe_load(yaml.safe_dump(MANIFEST)))
    known = {"semantic": KnownModel("Dense"), "words": KnownModel("Sparse"), "tokens": KnownModel("MultiVector")}
    assert [problem for graph in service.spec.pipelines or () for problem in check(graph, known)] == []


def test_a_model_is_made_once_and_whole(tmp_path: Path) -> None:
    """What fails half way leaves nothing that would pass for a model."""

    def fails(directory: Path) -> None:
        directory.mkdir()
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        _once(tmp_path / "words", fails)
    assert list(tmp_path.iterdir()) == []
    _once(tmp_path / "words", lambda directory: directory.mkdir())
    _once(tmp_path / "words", fails)
    assert [one.name for one in tmp_path.iterdir()] == ["words"]
