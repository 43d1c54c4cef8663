"""MPNet over texts that stand in one row."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, MPNetConfig, MPNetModel

from embedfleet_server.models import linear, relative
from embedfleet_server.models.layers import FusedLayer, fuse
from embedfleet_server.models.relative import Bias, Biased, Rows
from embedfleet_server.models.segments import Row, positions, row
from tests.support.processors import needs_packed_bfloat16
from tests.support.tiny_models import SIZES, seeded

pytestmark = pytest.mark.requirement("S2")
LENGTHS = [9, 5, 30, 3, 150]


@pytest.fixture
def mpnet() -> Any:
    """A tiny one, with weights that make a difference."""
    config = MPNetConfig(vocab_size=50, max_position_embeddings=202, pad_token_id=1, **SIZES)
    model: Any = seeded(MPNetModel, config)
    return model.eval()


def test_the_table_is_cut_to_each_length() -> None:
    """Asked of the model once while it is long enough, and made anew for a longer block."""
    asked: list[int] = []

    def made(like: torch.Tensor) -> torch.Tensor:
        asked.append(like.shape[1])
        places = torch.arange(like.shape[1])
        return (places - places.unsqueeze(1)).expand(1, 2, -1, -1)

    bias = Bias(made)
    for length in (8, 64, 20, 70, 128):
        found = bias.of(length)
        assert found.shape == (1, 2, length, length)
        assert (int(found[0, 0, 0, -1]), int(found[0, 0, -1, 0])) == (length - 1, 1 - length)
    assert asked == [64, 128]


def test_texts_of_a_block_are_told_apart() -> None:
    """Where they share it each block has a mask over its bias; where a text is alone the bias serves all."""
    placed = row([8, 8, 100, 100])
    alone, shared = placed.runs
    sees = Biased(
        lambda *_: torch.ones((), dtype=torch.bool),
        bias=Bias(lambda like: torch.ones(1, 2, like.shape[1], like.shape[1])),
    )
    whole, masked = (sees.of(run, placed, torch.float32) for run in (alone, shared))
    assert whole is not None
    assert masked is not None
    assert (whole.shape, masked.shape) == ((1, 2, 100, 100), (1, 2, shared.length, shared.length))
    assert bool((whole == 1).all())
    assert masked[0, :, 0, :8].eq(1).all()
    assert masked[0, :, 0, 8:].isneginf().all()
    assert sees.of(shared, placed, torch.float32) is masked


@torch.inference_mode()
@pytest.mark.parametrize(
    ("dtype", "is_packed", "is_fused", "least"),
    [
        (torch.float32, False, False, 0.99999),
        (torch.float32, False, True, 0.99999),
        (torch.float32, True, True, 0.99999),
        pytest.param(torch.bfloat16, True, True, 0.99, marks=needs_packed_bfloat16),
    ],
)
def test_each_text_is_computed_as_if_alone(
    mpnet: Any, dtype: torch.dtype, is_packed: bool, is_fused: bool, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts that share blocks and one that has its own, with layers of its own and with fused ones."""
    monkeypatch.setattr(linear, "_is_worth_it", lambda _: is_packed)
    texts = [np.random.default_rng(length).integers(4, 50, length) for length in LENGTHS]
    expected = [mpnet(torch.from_numpy(text)[None]).last_hidden_state[0] for text in texts]
    linear.pack(mpnet.to(dtype))
    form = Rows(mpnet)
    assert not is_fused or fuse(form) is not None
    assert all(isinstance(layer, FusedLayer) is is_fused for layer in form.layers)
    made = in_row(form, texts)
    for own, wanted in zip(made, expected, strict=True):
        assert float(torch.cosine_similarity(own.double(), wanted.double()).min()) >= least


def in_row(form: Callable[..., Any], texts: list[Any]) -> list[torch.Tensor]:
    placed: Row = row(LENGTHS)
    ids, places = np.zeros((2, 1, len(placed.owners)), np.int64)
    ids[0, placed.places] = np.concatenate(texts)
    places[0, placed.places] = positions(np.concatenate(texts), LENGTHS, 1)
    features = {"input_ids": torch.from_numpy(ids), "position_ids": torch.from_numpy(places), "segments": placed}
    made = form(features)["token_embeddings"][0]
    return [made[first : first + length] for first, length in zip(placed.first, LENGTHS, strict=True)]


def test_the_model_stays_as_it_was(mpnet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its layers are transformers' own, whatever became of those of the form."""
    monkeypatch.setattr(linear, "_is_worth_it", lambda _: True)
    linear.pack(mpnet)
    before = list(mpnet.encoder.layer)
    assert fuse(Rows(mpnet)) is not None
    assert list(mpnet.encoder.layer) == before


def test_other_models_have_no_such_form(mpnet: Any) -> None:
    """A subclass may compute something else."""
    somebody = type("Somebody", (MPNetModel,), {})
    assert relative.rows(mpnet) is not None
    assert relative.rows(seeded(somebody, mpnet.config)) is None
    assert relative.rows(seeded(BertModel, BertConfig(vocab_size=50, **SIZES))) is None
