"""Linear layers packed for oneDNN."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import nn

from embedfleet_server.models import linear
from embedfleet_server.models.linear import PackedLinear, PlainLinear, pack, pack_few
from tests.support.processors import needs_packed_bfloat16


@pytest.mark.requirement("S2")
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_layer_gives_the_same_numbers(bias: bool) -> None:
    """For inputs of any leading shape, to the rounding of float32."""
    torch.manual_seed(0)
    plain = nn.Linear(48, 96, bias=bias)
    with torch.inference_mode():
        for shape in ((1, 48), (7, 48), (2, 5, 48)):
            x = torch.randn(*shape)
            torch.testing.assert_close(PackedLinear(plain)(x), plain(x), rtol=1e-5, atol=1e-5)


@needs_packed_bfloat16
@pytest.mark.requirement("S2")
def test_a_packed_layer_in_bfloat16_gives_the_same_numbers() -> None:
    """To one step of bfloat16's 8 bits; the weight stays in bfloat16."""
    torch.manual_seed(0)
    plain = nn.Linear(48, 96, dtype=torch.bfloat16)
    packed = PackedLinear(plain)
    with torch.inference_mode():
        for shape in ((1, 48), (2, 5, 48)):
            x = torch.randn(*shape).to(torch.bfloat16)
            torch.testing.assert_close(packed(x), plain(x), rtol=1e-2, atol=1e-2)
    assert packed.weight.dtype == torch.bfloat16


@needs_packed_bfloat16
def test_bfloat16_layers_are_packed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As float32's are."""
    monkeypatch.setattr(linear, "_is_worth_it", lambda _: True)
    model = nn.Sequential(nn.Linear(32, 64, dtype=torch.bfloat16))
    assert pack(model)
    assert isinstance(model[0], PackedLinear)


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        ([1.0, 1.2, 8.0, 10.0], True),
        ([1.4, 1.2, 8.0, 10.0], False),
        ([1.3, 1.2, 8.0, 10.0], True),
        ([1.0, 1.2, 9.8, 10.0], False),
    ],
)
def test_packing_must_help_a_batch_and_not_hurt_one_text(
    monkeypatch: pytest.MonkeyPatch, taken: list[float], expected: bool
) -> None:
    """Times of one text packed and plain, and of a batch packed and plain."""
    monkeypatch.setattr(linear, "shortest", lambda calls, tries: taken)
    assert pack(nn.Sequential(nn.Linear(32, 64))) is expected


@pytest.mark.parametrize(
    ("layer", "dtype", "rows"),
    [
        ((384, 1536), torch.float32, 1024),
        ((1024, 4096), torch.float32, 1024),
        ((2048, 4096), torch.float32, 512),
        ((4096, 16384), torch.float32, 256),
        ((384, 1536), torch.bfloat16, 256),
    ],
)
def test_a_trial_s_batch_is_as_large_as_its_time_allows(layer: tuple[int, int], dtype: torch.dtype, rows: int) -> None:
    """In float32, where a library that is slow on few rows may be the faster one on many; half a second at most."""
    assert linear._batch(nn.Linear(*layer, dtype=dtype, device="meta")) == rows


def _model() -> nn.Module:
    return nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Sequential(nn.Linear(64, 8)))


def test_all_layers_are_packed_where_it_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nested ones too; the model still gives what it gave."""
    monkeypatch.setattr(linear, "_is_worth_it", lambda _: True)
    model, x = _model(), torch.randn(3, 32)
    with torch.inference_mode():
        expected = model(x)
        assert pack(model)
        assert not [module for module in model.modules() if isinstance(module, nn.Linear)]
        torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)


def test_other_precisions_and_subclasses_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """float16 layers, which oneDNN has no form for, and classes that only look like a linear layer, are left alone."""

    class Odd(nn.Linear):
        pass

    monkeypatch.setattr(linear, "_is_worth_it", lambda _: True)
    assert not pack(nn.Sequential(nn.Linear(4, 4).to(torch.float16), Odd(4, 4)))


def test_without_a_clock_all_that_can_be_packed_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it is slower; and what a clock left as it was is told apart from what cannot be packed."""
    monkeypatch.setattr(linear, "shortest", lambda calls, tries: [2.0, 1.0, 2.0, 1.0])
    model = _model()
    assert not pack(model)
    assert linear.left(model)
    assert pack(model, timed=False)
    assert not linear.left(model)
    assert not linear.left(nn.Sequential(nn.Linear(4, 4).to(torch.float16)))


def test_a_build_without_the_operators_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The private operators raise: the model stays torch's own, and nobody sees an error."""

    def missing(_: nn.Linear) -> PackedLinear:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(linear, "PackedLinear", missing)
    model = _model()
    assert not pack(model)
    assert not pack(model, timed=False)
    assert not linear.left(model)
    assert len([module for module in model.modules() if isinstance(module, nn.Linear)]) == 2


def _plain() -> list[PlainLinear]:
    torch.manual_seed(0)
    return [PlainLinear(nn.Linear(48, 96)), PlainLinear(nn.Linear(96, 48))]


def _measured(times: list[float]) -> Callable[..., list[float]]:
    """In place of a clock: what is to be timed is computed, and took so long."""

    def shortest(calls: Sequence[Callable[[], object]], tries: int) -> list[float]:
        for call in calls:
            call()
        return times

    return shortest


FEW_ARE_FASTER = [0.8, 1.0, 0.9, 1.0]


@pytest.mark.requirement("S2")
@pytest.mark.parametrize("rows", [1, 32, 33, 500])
def test_few_rows_are_packed_and_many_are_not(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """What a layer gives is the same with either, whatever is computed within it."""
    monkeypatch.setattr(linear, "shortest", _measured(FEW_ARE_FASTER))
    (layer, _), (few, other) = _plain(), _plain()
    x, residual = torch.randn(rows, 48), torch.randn(rows, 96)
    with torch.inference_mode():
        assert pack_few([few, other])
        assert (few.few(x) is not None) is (rows <= 32)
        for made, expected in (
            (few(x), layer(x)),
            (few.activated(x, "gelu", "none"), layer.activated(x, "gelu", "none")),
            (few.added(x, residual), layer.added(x, residual)),
        ):
            torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)


def test_a_form_for_few_rows_is_no_other_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is reckoned from a model's layers stays the same."""
    monkeypatch.setattr(linear, "shortest", _measured(FEW_ARE_FASTER))
    model = nn.ModuleList(_plain())
    before = linear.multiplications(model)
    assert pack_few(_layers(model))
    assert linear.multiplications(model) == before


def _layers(model: nn.Module) -> list[PlainLinear]:
    return [part for part in model.modules() if isinstance(part, PlainLinear)]


@pytest.mark.parametrize("times", [[0.95, 1.0, 0.8, 1.0], [0.8, 1.0, 0.95, 1.0]])
def test_few_rows_stay_where_they_gain_little(monkeypatch: pytest.MonkeyPatch, times: list[float]) -> None:
    """One text's or two: less gain may be noise, and the weights would be in memory twice."""
    monkeypatch.setattr(linear, "shortest", _measured(times))
    layers = _plain()
    assert not pack_few(layers)
    assert layers[0].few(torch.randn(1, 48)) is None


def test_large_weights_are_not_kept_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the bound they are."""
    monkeypatch.setattr(linear, "shortest", _measured(FEW_ARE_FASTER))
    monkeypatch.setattr(linear, "_FEW_BYTES", 2 * 48 * 96 * 4 - 1)
    assert not pack_few(_plain())
    monkeypatch.setattr(linear, "_FEW_BYTES", 2 * 48 * 96 * 4)
    assert pack_few(_plain())


def test_few_rows_of_half_precision_and_of_no_layers_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 is packed for all rows or for none; float16 has no packed form."""
    monkeypatch.setattr(linear, "_are_faster", lambda _: True)
    for dtype in (torch.bfloat16, torch.float16):
        assert not pack_few([PlainLinear(nn.Linear(48, 96, dtype=dtype))])
    assert not pack_few([])


def test_without_the_operators_few_rows_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody sees an error."""

    def missing(_: nn.Linear) -> PackedLinear:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(linear, "PackedLinear", missing)
    assert not pack_few(_plain())
