"""Packed batches: every architecture says whether it is packed, and packed and padded give the same (S2)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AttentionInterface

from embedfleet_server.engine.protocols import Encoded, Item
from embedfleet_server.models import attention, layers, linear, packing, relative
from embedfleet_server.models.dense import DenseModel
from embedfleet_server.models.layers import FusedLayer
from tests.support.loading import load
from tests.support.processors import PACKED_DTYPES
from tests.support.texts import mixed_texts
from tests.support.tiny_models import TINY

pytestmark = pytest.mark.requirement("S2", "S5")
TEXTS = mixed_texts(120)
LEAST = {"Float32": 0.99999, "BFloat16": 0.999}
PADDED = {"deberta": "DebertaV2Model does not take its attention from transformers' interface"}
"""What cannot be packed, and why not."""
FUSED = ("bert", "xlm-roberta", "distil-bert", "mpnet")
"""Names of those whose layers are of BERT's kind begin with one of these."""
Directories = Callable[[str], Path]


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> Directories:
    root = tmp_path_factory.mktemp("tiny")
    return lambda name: root / name if (root / name).is_dir() else TINY[name](root / name)


@pytest.fixture
def padded(monkeypatch: pytest.MonkeyPatch) -> Callable[..., DenseModel]:
    """Loads a model whose batches are padded, whatever it can."""

    def loaded(directory: Path, **fields: Any) -> DenseModel:
        with monkeypatch.context() as patch:
            left = packing.Layout("padded", "by this test")
            patch.setattr(packing, "packed", lambda *given, **more: (None, left))
            return load(directory, **fields)

    return loaded


def closeness(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return float(((left * right).sum(axis=1) / lengths).min())


@pytest.mark.parametrize("dtype", LEAST)
@pytest.mark.parametrize("name", TINY)
def test_packed_and_padded_give_the_same(
    directories: Directories, padded: Callable[..., DenseModel], name: str, dtype: str
) -> None:
    """120 texts in one batch, of each architecture and pooling, against the padded form in float32."""
    model, other = load(directories(name), dtype=dtype), padded(directories(name))
    expected = ("padded", PADDED[name]) if name in PADDED else ("packed", "next to no padding is computed")
    assert (model.info.layout, model.info.layout_reason) == expected
    assert (other.info.layout, other.info.precision) == ("padded", "float32")
    encoded = model.encode(TEXTS, "")
    assert closeness(model.forward(encoded), other.forward(encoded)) >= LEAST[dtype]


@pytest.mark.parametrize("dtype", LEAST)
@pytest.mark.parametrize("name", ["bert-mean", "modern-bert", "gemma", "decoder-left"])
def test_the_padded_path_in_each_precision(
    directories: Directories, padded: Callable[..., DenseModel], name: str, dtype: str
) -> None:
    """Padded in half precision too, as it would be for what cannot be packed, against packed in float32."""
    model, other = padded(directories(name), dtype=dtype), load(directories(name))
    encoded = model.encode(TEXTS, "")
    assert closeness(model.forward(encoded), other.forward(encoded)) >= LEAST[dtype]


def test_padding_within_a_text_is_counted_as_the_model_does(
    directories: Directories, padded: Callable[..., DenseModel]
) -> None:
    """Token ids of a client's may hold the padding's id, which XLM-R does not count among its positions."""
    ids: list[Item] = [[0, 7, 1, 8, 2], [0, 9, 2], [0, 1, 1, 10, 2]]
    model, other = load(directories("xlm-roberta")), padded(directories("xlm-roberta"))
    encoded = model.encode(ids, "")
    alone: list[Encoded] = other.encode(ids, "")
    assert closeness(model.forward(encoded), np.concatenate([other.forward([one]) for one in alone])) >= 0.99999


def test_a_model_that_attends_in_its_own_way_is_left_as_it_was(
    directories: Directories, padded: Callable[..., DenseModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the packed form is wrong in the trial, the padded one serves, and the reason says so."""

    def wrong(*given: Any, **more: Any) -> tuple[torch.Tensor, None]:
        made, _ = attention.attend(*given, **more)
        return made.flip(1), None

    monkeypatch.setattr(layers, "fuse", lambda model: None)  # the layers are the model's own then
    monkeypatch.setitem(AttentionInterface._global_mapping, attention.NAME, wrong)
    model = load(directories("bert-mean"))
    assert model.info.layout == "padded"
    assert "cannot be packed: a cosine of" in model.info.layout_reason
    encoded = model.encode(TEXTS, "")
    assert closeness(model.forward(encoded), padded(directories("bert-mean")).forward(encoded)) >= 0.99999


def fused(model: DenseModel) -> int:
    """How many layers of ours it has."""
    forward: Any = model._forward
    form = forward._modules[0] if forward.packed is None else forward.packed._compute
    return sum(isinstance(module, FusedLayer) for module in form.modules())


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linear layers are packed, whatever is faster on this machine."""
    monkeypatch.setattr(linear, "_is_worth_it", lambda _: True)


@pytest.mark.parametrize("dtype", LEAST)
@pytest.mark.parametrize("name", TINY)
def test_fused_layers_of_torch_s_own_products_give_the_same(
    directories: Directories,
    padded: Callable[..., DenseModel],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    dtype: str,
) -> None:
    """Where those are the faster ones, the same layers are replaced, and what each architecture gives is the same."""
    monkeypatch.setattr(linear, "_is_worth_it", lambda _: False)
    model, other = load(directories(name), dtype=dtype), padded(directories(name))
    assert fused(model) == (2 if name.startswith(FUSED) else 0)
    encoded = model.encode(TEXTS, "")
    assert closeness(model.forward(encoded), other.forward(encoded)) >= LEAST[dtype]


@pytest.mark.parametrize("name", [name for name in TINY if name.startswith(FUSED)])
def test_few_tokens_by_packed_products_give_the_same(
    directories: Directories, padded: Callable[..., DenseModel], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Where torch's own products are the faster ones for many rows only: each text alone, and all together."""
    monkeypatch.setattr(linear, "_is_worth_it", lambda _: False)
    monkeypatch.setattr(linear, "_are_faster", lambda _: True)
    model, other = load(directories(name)), padded(directories(name))
    rows: list[int] = []
    right = linear.PackedLinear.activated

    def seen(layer: linear.PackedLinear, x: torch.Tensor, *how: str) -> torch.Tensor:
        rows.append(len(x))
        return right(layer, x, *how)

    monkeypatch.setattr(linear.PackedLinear, "activated", seen)
    encoded = model.encode(TEXTS, "")
    for batch in (*([one] for one in encoded), encoded):
        assert closeness(model.forward(batch), other.forward(batch)) >= LEAST["Float32"]
    assert 1 <= min(rows) <= max(rows) <= 32


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize("dtype", PACKED_DTYPES)
@pytest.mark.parametrize("name", TINY)
def test_fused_layers_give_the_same(
    directories: Directories, padded: Callable[..., DenseModel], name: str, dtype: str
) -> None:
    """Layers of BERT's kind are replaced, others are not; what each architecture gives is the same as padded."""
    model, other = load(directories(name), dtype=dtype), padded(directories(name))
    assert fused(model) == (2 if name.startswith(FUSED) else 0)
    encoded = model.encode(TEXTS, "")
    assert closeness(model.forward(encoded), other.forward(encoded)) >= LEAST[dtype]


@pytest.mark.usefixtures("products")
def test_fused_layers_that_are_wrong_are_undone(
    directories: Directories, padded: Callable[..., DenseModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is packed with its own layers then."""
    right = FusedLayer.forward

    def wrong(self: FusedLayer, *given: Any, **more: Any) -> torch.Tensor:
        return right(self, *given, **more).flip(1)

    monkeypatch.setattr(FusedLayer, "forward", wrong)
    model = load(directories("bert-mean"))
    assert (model.info.layout, fused(model)) == ("packed", 0)
    encoded = model.encode(TEXTS, "")
    assert closeness(model.forward(encoded), padded(directories("bert-mean")).forward(encoded)) >= 0.99999


@pytest.mark.parametrize("linear_layers", ["packed", "torch's own"])
@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (lambda table: table.flip(3), "a cosine of"),
        (torch.zeros_like, "a cosine of"),
        (lambda table: table[:, :2], "RuntimeError"),
    ],
)
def test_relative_positions_that_are_wrong_leave_it_padded(
    directories: Directories,
    padded: Callable[..., DenseModel],
    monkeypatch: pytest.MonkeyPatch,
    linear_layers: str,
    wrong: Callable[[torch.Tensor], torch.Tensor],
    why: str,
) -> None:
    """An MPNet whose bias is mirrored, missing or of other heads in the packed form serves as transformers has it."""
    right = relative.Bias.of
    monkeypatch.setattr(linear, "_is_worth_it", lambda _: linear_layers == "packed")
    monkeypatch.setattr(relative.Bias, "of", lambda self, length: wrong(right(self, length)))
    model = load(directories("mpnet"))
    assert model.info.layout == "padded"
    assert f"MPNetModel cannot be packed: {why}" in model.info.layout_reason
    encoded = model.encode(TEXTS, "")
    assert closeness(model.forward(encoded), padded(directories("mpnet")).forward(encoded)) >= 0.99999


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize("name", ["bert-mean", "modern-bert", "decoder-left", "mpnet"])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_few_texts_fill_part_of_a_block(
    directories: Directories, padded: Callable[..., DenseModel], name: str, count: int
) -> None:
    """Filling and other texts in a block change nothing."""
    model, other = load(directories(name)), padded(directories(name))
    for start in range(0, 21, count):
        encoded = model.encode(TEXTS[start : start + count], "")
        assert closeness(model.forward(encoded), other.forward(encoded)) >= 0.99999


def test_an_attention_that_is_not_ours_to_compute_is_named(
    directories: Directories, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A soft cap on the scores, as Gemma 2 has, changes the result: padded, and said."""

    def capped(*given: Any, **more: Any) -> tuple[torch.Tensor, None]:
        return attention.attend(*given, **more, softcap=50.0)

    monkeypatch.setattr(layers, "fuse", lambda model: None)  # the layers are the model's own then
    monkeypatch.setitem(AttentionInterface._global_mapping, attention.NAME, capped)
    model = load(directories("bert-mean"))
    assert model.info.layout_reason == "BertModel cannot be packed: its attention takes softcap"
