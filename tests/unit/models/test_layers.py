"""Encoder layers whose products take along what follows them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

from embedfleet_server.models import layers, linear
from embedfleet_server.models.attention import Sees
from embedfleet_server.models.layers import FusedLayer, fuse
from embedfleet_server.models.segments import row
from tests.support.processors import needs_packed_bfloat16
from tests.support.tiny_models import SIZES, seeded

pytestmark = pytest.mark.requirement("S2")
_ALL_SEE_ALL = Sees(lambda batch, head, query, key: query.new_ones((), dtype=torch.bool))
Model = Callable[..., Any]


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> Model:
    """Makes a tiny BERT whose linear layers are packed, whatever is faster here."""

    def made(dtype: torch.dtype = torch.float32, **settings: Any) -> Any:
        monkeypatch.setattr(linear, "_is_worth_it", lambda _: True)
        model: Any = seeded(BertModel, BertConfig(vocab_size=50, **SIZES, **settings))
        model.eval().to(dtype)
        assert linear.pack(model)
        return model

    return made


@torch.inference_mode()
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), pytest.param(torch.bfloat16, 0.1, marks=needs_packed_bfloat16)]
)
@pytest.mark.parametrize("activation", ["gelu", "gelu_pytorch_tanh", "gelu_new", "relu"])
def test_a_fused_layer_gives_the_same_numbers(
    packed: Model, activation: str, dtype: torch.dtype, tolerance: float
) -> None:
    """For a text that stands with others in a block, of each activation; norms make the numbers about 1."""
    model = packed(dtype, hidden_act=activation)
    plain = model.encoder.layer[0]
    assert fuse(model) is not None
    placed = row([9, 5, 30])
    whole = torch.randn(1, len(placed.owners), SIZES["hidden_size"], generator=torch.Generator().manual_seed(0)).to(
        dtype
    )
    made = model.encoder.layer[0](whole, _ALL_SEE_ALL, segments=placed)
    for text in range(3):
        own = torch.from_numpy(placed.owners == text)
        torch.testing.assert_close(made[:, own], plain(whole[:, own]), rtol=0, atol=tolerance)


def test_all_layers_are_replaced_and_can_be_put_back(packed: Model) -> None:
    """Undone, the model has its own layers again."""
    model = packed()
    before = list(model.encoder.layer)
    replaced = fuse(model)
    assert replaced is not None
    assert {type(layer) for layer in model.encoder.layer} == {FusedLayer}
    replaced.undo()
    assert list(model.encoder.layer) == before


@torch.inference_mode()
@pytest.mark.parametrize("lengths", [(9, 55), (9, 20)])
@pytest.mark.parametrize("activation", ["gelu", "gelu_pytorch_tanh", "gelu_new", "relu"])
def test_products_that_are_not_packed_are_fused_too(
    monkeypatch: pytest.MonkeyPatch, activation: str, lengths: tuple[int, int]
) -> None:
    """Where torch's own are the faster ones, or but for few rows; what is written in place is none of the input."""
    monkeypatch.setattr(linear, "_are_faster", lambda _: True)
    model: Any = seeded(BertModel, BertConfig(vocab_size=50, hidden_act=activation, **SIZES))
    plain = model.eval().encoder.layer[0]
    replaced = fuse(model)
    assert replaced is not None
    assert replaced.quicken()
    placed = row(lengths)
    whole = torch.randn(1, len(placed.owners), SIZES["hidden_size"], generator=torch.Generator().manual_seed(0))
    given = whole.clone()
    made = model.encoder.layer[0](whole, _ALL_SEE_ALL, segments=placed)
    assert torch.equal(whole, given)
    for text in range(2):
        own = torch.from_numpy(placed.owners == text)
        torch.testing.assert_close(made[:, own], plain(whole[:, own]), rtol=0, atol=1e-4)


def test_layers_that_are_packed_in_part_stay(packed: Model) -> None:
    """Products of two kinds are not put together."""
    model = packed()
    model.encoder.layer[0].output.dense = nn.Linear(SIZES["intermediate_size"], SIZES["hidden_size"])
    assert fuse(model) is None


def test_an_activation_that_is_not_known_stays(packed: Model) -> None:
    """SiLU is none of those that oneDNN is asked for here."""
    assert fuse(packed(hidden_act="silu")) is None


def test_a_layer_with_more_to_do_stays(packed: Model) -> None:
    """An adapter in one layer, say: the whole model keeps its layers."""
    model = packed()
    model.encoder.layer[1].output.adapter = nn.LayerNorm(SIZES["hidden_size"])
    assert fuse(model) is None
    assert not [layer for layer in model.encoder.layer if isinstance(layer, FusedLayer)]


def test_activations_are_known_by_what_they_compute() -> None:
    """The exact GELU is told from its approximation."""
    found = [layers._known(each) for each in (nn.GELU(), nn.GELU(approximate="tanh"), nn.ReLU(), nn.SiLU())]
    assert found == [("gelu", "none"), ("gelu", "tanh"), ("relu", ""), None]
