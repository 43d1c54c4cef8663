"""Attention over blocks of one length, in either form."""

from math import inf

import pytest
import torch
from torch.nn.functional import cosine_similarity, scaled_dot_product_attention

from embedfleet_server.models import scores

pytestmark = pytest.mark.requirement("S2")
SHAPES = [(1, 2, 8, 4), (3, 12, 64, 32), (2, 4, 200, 64)]


def made(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values as a layer's product leaves them: a view of one array."""
    blocks, heads, length, width = shape
    row = torch.randn(blocks * length, 3, heads, width, generator=torch.Generator().manual_seed(1)).to(dtype)
    query, key, value = (each.reshape(blocks, length, heads, width).transpose(1, 2) for each in row.unbind(1))
    return query, key, value


def masks(shape: tuple[int, ...], dtype: torch.dtype) -> list[torch.Tensor | None]:
    """None, the same for all blocks, and one for each."""
    blocks, _, length, _ = shape
    causal = torch.zeros(length, length, dtype=dtype).masked_fill_(torch.ones(length, length).triu(1).bool(), -inf)
    owners = torch.arange(length).div(5, rounding_mode="floor").expand(blocks, 1, length)
    own = torch.zeros(blocks, 1, length, length, dtype=dtype)
    return [None, causal, own.masked_fill_(owners.unsqueeze(3) != owners.unsqueeze(2), -inf)]


@torch.inference_mode()
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "least"), [(torch.float32, 0.999999), (torch.bfloat16, 0.999)])
@pytest.mark.parametrize("scale", [None, 0.5])
def test_the_products_give_what_torch_gives(
    shape: tuple[int, ...], dtype: torch.dtype, least: float, scale: float | None
) -> None:
    """With each kind of mask and scale, to the rounding of the precision, and nothing is no number."""
    query, key, value = made(shape, dtype)
    for mask in masks(shape, dtype):
        found = scores.by_products(query, key, value, mask, scale)
        expected = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
        assert found.shape == expected.shape
        assert float(cosine_similarity(found.double(), expected.double(), dim=-1).min()) >= least


@torch.inference_mode()
@pytest.mark.parametrize(
    ("shape", "dtype", "faster", "products"),
    [
        ((16, 12, 64, 4), torch.bfloat16, True, True),
        ((16, 12, 64, 4), torch.bfloat16, False, False),
        ((16, 12, 64, 4), torch.float32, True, False),
        ((1, 12, 64, 4), torch.bfloat16, True, False),
        ((1, 1, 4104, 4), torch.bfloat16, True, False),
    ],
)
def test_which_form_is_taken(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], dtype: torch.dtype, faster: bool, products: bool
) -> None:
    """The products in bfloat16 alone, where they were found faster, and for neither few scores nor very many."""
    taken: list[object] = []
    monkeypatch.setattr(scores, "_products_are_faster", lambda: faster)
    monkeypatch.setattr(scores, "by_products", lambda *given: taken.append(given))
    scores.attended(*made(shape, dtype), None, None)
    assert bool(taken) is products
