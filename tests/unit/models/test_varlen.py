"""A GPU's attention over texts of unlike lengths: which masks it is taken for, and what it is given."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import masking_utils

from embedfleet_server.models import varlen
from embedfleet_server.models.attention import CannotPack
from embedfleet_server.models.precision import Hardware
from embedfleet_server.models.varlen import Asked, Layers, Texts, Window, attend
from tests.support.varlen import STAND_IN, documented, needs_gpu, seen, without_groups

pytestmark = pytest.mark.requirement("S2")
ALL, CAUSAL = masking_utils.bidirectional_mask_function, masking_utils.causal_mask_function
Mask = Callable[..., Any]


@pytest.mark.parametrize("most", [2, 60, 300, 9000])
@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (ALL, Window()),
        (CAUSAL, Window(-1, 0)),
        (masking_utils.sliding_window_causal_mask_function(8), Window(7, 0)),
        (masking_utils.sliding_window_bidirectional_mask_function(8), Window(8, 8)),
        (masking_utils.sliding_window_causal_mask_function(4096), Window(4095, 0)),
        (masking_utils.sliding_window_bidirectional_mask_function(257), Window(257, 257)),
    ],
)
def test_masks_of_transformers_are_known(mask: Mask, expected: Window, most: int) -> None:
    """Each is the window that it is; one wider than the longest text is none."""
    bounds = (-1 if each >= most - 1 else each for each in (expected.before, expected.behind))
    assert Asked(mask).window(most) == Window(*bounds)


@pytest.mark.parametrize(
    "mask",
    [
        masking_utils.chunked_causal_mask_function(16, torch.zeros(1, dtype=torch.long)),
        masking_utils.or_masks(CAUSAL, lambda batch, head, query, key: key < 3),
        masking_utils.and_masks(ALL, lambda batch, head, query, key: key != query),
        lambda batch, head, query, key: (key + query) % 2 == 0,
        lambda batch, head, query, key: key > query,
        lambda batch, head, query, key: key < 0 * query,
        lambda batch, head, query, key: (key <= query) | (query >= 1000),
    ],
)
def test_masks_of_other_kinds_are_refused(mask: Mask) -> None:
    """Chunks, a prefix that all see, a diagonal left out, patterns, nothing seen, a count from the row's start."""
    with pytest.raises(CannotPack, match="neither all, nor causal, nor a window"):
        Layers(STAND_IN, 60).window(torch.nn.Identity(), Asked(mask))


@pytest.mark.parametrize("mask", [lambda b, h, q, k: k <= q + 4, lambda b, h, q, k: k >= q - 4])
def test_a_bound_on_one_side_is_refused(mask: Mask) -> None:
    """The kernel is not documented to know it."""
    with pytest.raises(CannotPack, match="a bound on one side only"):
        Layers(STAND_IN, 60).window(torch.nn.Identity(), Asked(mask))


def test_a_layer_is_asked_once() -> None:
    """In the trial; in service, where the same layer comes with another forward's mask, nothing is asked anew."""
    layers, layer = Layers(STAND_IN, 60), torch.nn.Identity()
    asked: list[int] = []

    def mask(batch: Any, head: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        asked.append(1)
        return masking_utils.sliding_window_bidirectional_mask_function(5)(batch, head, query, key)  # type: ignore[no-any-return]

    assert [layers.window(layer, Asked(mask)) for _ in range(3)] == [Window(5, 5)] * 3
    assert len(asked) == 2  # at two places of the row
    assert layers.widest == 5
    layers.window(torch.nn.Identity(), Asked(CAUSAL))
    assert layers.widest == 5


@pytest.mark.parametrize(
    ("capability", "dtype", "own"),
    [
        ((7, 5), torch.float32, "7.5 and float32"),
        ((7, 5), torch.float16, "7.5 and float16"),
        ((6, 0), torch.float16, "6.0 and float16"),
        ((8, 0), torch.float32, "8.0 and float32"),
        ((9, 0), torch.float64, "9.0 and float64"),
        (None, torch.bfloat16, "unknown and bfloat16"),
    ],
)
def test_devices_and_types_that_cannot(capability: tuple[int, int] | None, dtype: torch.dtype, own: str) -> None:
    """Older cards and float32 stay padded, and are told what is needed and what is there."""
    with pytest.raises(CannotPack) as told:
        varlen.kernel(Hardware(capability=capability), dtype)
    needed = "packed attention on a GPU needs compute capability 8.0 and half precision"
    assert str(told.value) == f"{needed}; this is {own}"


@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_devices_and_types_that_can(capability: tuple[int, int], dtype: torch.dtype) -> None:
    """From Ampere on, in both half precisions."""
    assert callable(varlen.kernel(Hardware(capability=capability), dtype))


def texts(lengths: list[int], layers: Layers, device: str = "cpu") -> Texts:
    bounds = torch.tensor([0, *lengths]).cumsum(0).int().to(device)
    return Texts(bounds, max(lengths), sum(lengths), layers)


def made(
    widths: tuple[int, int, int] = (8, 8, 8),
    heads: tuple[int, int] = (4, 4),
    lengths: tuple[int, ...] = (5, 1, 9),
    mask: Any = None,
    kernel: varlen.Kernel = STAND_IN,
    **more: Any,
) -> torch.Tensor:
    layers = Layers(kernel, 60)
    random = torch.Generator().manual_seed(0)
    count = (heads[0], heads[1], heads[1])
    q, k, v = (
        torch.randn(1, number, sum(lengths), width, generator=random)
        for number, width in zip(count, widths, strict=True)
    )
    mask = Asked(ALL) if mask is None else mask
    given = {"segments": texts(list(lengths), layers), **more}
    return attend(torch.nn.Identity(), q, k, v, mask, **given)[0]


@pytest.mark.parametrize("width", [8, 16, 64, 72, 96, 128, 256])
def test_widths_of_a_head_that_the_kernel_takes(width: int) -> None:
    """Multiples of 8 up to 256."""
    assert made(widths=(width, width, width)).shape == (1, 15, 4, width)


@pytest.mark.parametrize(
    ("widths", "said"),
    [
        ((4, 4, 4), "4 numbers"),
        ((20, 20, 20), "20 numbers"),
        ((264, 264, 264), "264 numbers"),
        ((16, 16, 8), "8 and 16 numbers"),
    ],
)
def test_widths_that_it_does_not_take(widths: tuple[int, int, int], said: str) -> None:
    """The model stays padded for that reason."""
    with pytest.raises(CannotPack, match=f"its heads have {said}; .* multiples of 8 up to 256"):
        made(widths=widths)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"segments": None}, "not told where texts begin"),
        ({"softcap": 50.0}, "takes softcap"),
        ({"position_bias": torch.zeros(1), "s_aux": 1}, "takes position_bias, s_aux"),
        ({"mask": torch.zeros(1)}, "masks its attention in a way of its own"),
        ({"segments": texts([5, 1], Layers(STAND_IN, 60))}, "not over the tokens of the texts alone"),
    ],
)
def test_what_an_attention_may_not_bring(given: dict[str, Any], said: str) -> None:
    """Whatever would change the result is refused by name."""
    with pytest.raises(CannotPack, match=said):
        made(**given)


@pytest.mark.parametrize("form", [documented, without_groups])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (6, 1)])
def test_grouped_heads_by_the_api_of_each_torch(form: Any, heads: tuple[int, int]) -> None:
    """2.12 and later are told of groups; for 2.11 keys and values are repeated. Both give the same."""
    expected = made(heads=heads, kernel=STAND_IN)
    torch.testing.assert_close(made(heads=heads, kernel=varlen.adapted(form)), expected)


def test_the_kernel_of_this_torch_takes_what_it_is_given() -> None:
    """Names and order of its parameters are those of the stand-in, which all else is tested with."""
    own, ours = (list(inspect.signature(each).parameters.values()) for each in (varlen_attn, documented))
    assert [each.name for each in own[:7]] == [each.name for each in ours[:7]]
    theirs = {each.name: each.default for each in own[7:] if each.kind is inspect.Parameter.KEYWORD_ONLY}
    wanted = {each.name: each.default for each in ours[7:]}
    assert {name: theirs.get(name, "missing") for name in wanted} == wanted


@given(
    lengths=st.lists(st.integers(1, 24), min_size=1, max_size=12),
    window=st.sampled_from(
        [(ALL, (-1, -1)), (CAUSAL, (-1, 0)), (masking_utils.sliding_window_causal_mask_function(4), (3, 0))]
    ),
)
def test_each_text_attends_as_if_alone(lengths: list[int], window: tuple[Mask, tuple[int, int]]) -> None:
    """Whatever stands beside it in the row, and in its own window."""
    mask, bounds = window
    random = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, 2, sum(lengths), 8, generator=random) for _ in range(3))
    layers = Layers(STAND_IN, 60)
    found, _ = attend(torch.nn.Identity(), q, k, v, Asked(mask), scaling=0.3, segments=texts(lengths, layers))
    start = 0
    for length in lengths:
        query, key, value = (each[:, :, start : start + length] for each in (q, k, v))
        alone = scaled_dot_product_attention(query, key, value, attn_mask=seen(length, *bounds), scale=0.3)
        torch.testing.assert_close(found[:, start : start + length], alone.transpose(1, 2))
        start += length


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("heads", [(4, 4), (8, 2)])
@pytest.mark.parametrize("width", [32, 64, 128, 256])
@pytest.mark.parametrize("window", [(-1, -1), (-1, 0), (63, 0), (64, 64)])
def test_torchs_kernel_gives_what_is_documented(
    dtype: torch.dtype, heads: tuple[int, int], width: int, window: tuple[int, int]
) -> None:
    """On the GPU, against the stand-in in float32, for short and long texts, each mask, and grouped heads."""
    kernel = varlen.kernel(Hardware(capability=torch.cuda.get_device_capability()), dtype)
    placed = texts([1, 300, 17, 64, 129], Layers(kernel, 512), device="cuda")
    random = torch.Generator().manual_seed(0)
    shapes = [(511, number, width) for number in (heads[0], heads[1], heads[1])]
    q, k, v = (torch.randn(shape, generator=random).to(dtype) for shape in shapes)
    bounds, longest = placed.bounds, placed.longest
    with torch.inference_mode():
        found = kernel(
            q.cuda(), k.cuda(), v.cuda(), bounds, bounds, longest, longest, scale=0.1, window_size=window
        )  # fmt: skip
        there = bounds.cpu()
        expected = STAND_IN(
            q.float(), k.float(), v.float(), there, there, longest, longest, scale=0.1, window_size=window
        )  # fmt: skip
    torch.testing.assert_close(found.float().cpu(), expected, rtol=0.02, atol=0.02)
