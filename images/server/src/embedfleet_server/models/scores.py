"""Attention over blocks of one length, by the faster of two forms: torch's own, or two products and a softmax.

In bfloat16 torch's own spends its time on turning numbers to float32 and back: two products of oneDNN and a softmax
took 0.56 to 0.68 of its time for 2048 tokens in blocks of 64 to 256 (32 numbers a head), 0.45 at 512 (64 a head), on a
Zen 5 with AVX512-bf16. A single block of 64 gains little, and in float32 the products are MKL's and no faster.
"""

import math
import threading
from functools import cache, partial

import torch
from torch.nn.functional import scaled_dot_product_attention

from embedfleet_server.models.timing import shortest

_LEAST, _MOST = 2**17, 2**24
"""Scores of a call: of three blocks of 64, 12 heads each, the products took 0.7 of the time, of one 0.93, within noise;
more than the most would take over 32 MiB, twice."""
_TRIAL = (32, 12, 64, 32)  # blocks, heads, length, numbers a head: 2048 tokens, as a piece of a batch has them
_TRIES = 8
_ALIGNED = 64
"""Bytes at whose multiples torch's arrays begin: a block that begins elsewhere may have other bits, since MKL's kernels
heed alignment, so that it is copied."""
_WORTH_IT = 0.9  # of torch's own time: less gain could be noise


def attended(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float | None
) -> torch.Tensor:
    """Shapes (blocks, heads, length, width) to the same; `mask` is added to the scores, broadcast."""
    blocks, heads, length, _ = query.shape
    is_half = query.dtype == torch.bfloat16 and query.device.type == "cpu"
    if is_half and _LEAST <= blocks * heads * length * length <= _MOST and _products_are_faster():
        return by_products(query, key, value, mask, scale)
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)


def each_by_itself(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float | None
) -> torch.Tensor:
    """The same with each block in a call of its own, and the form chosen by its length: no other changes its bits."""
    _, heads, length, width = query.shape
    is_half = query.dtype == torch.bfloat16 and query.device.type == "cpu"
    products = is_half and _LEAST <= heads * length * length <= _MOST
    if width * query.element_size() % _ALIGNED:
        own = [[one.unsqueeze(0).contiguous() for one in each] for each in (query, key, value)]
    else:
        own = [[one.unsqueeze(0) for one in each] for each in (query, key, value)]
    form = by_products if products else _by_torch
    masks = [mask] * len(query) if mask is None or len(mask) == 1 else [one.unsqueeze(0) for one in mask]
    made = [form(q, k, v, own_mask, scale) for q, k, v, own_mask in zip(*own, masks, strict=True)]
    return made[0] if len(made) == 1 else torch.cat(made)


def _by_torch(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float | None
) -> torch.Tensor:
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)


def by_products(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float | None
) -> torch.Tensor:
    """The same by two products with a softmax between them, which holds all scores at once."""
    blocks, heads, length, width = query.shape
    q, k, v = (each.reshape(blocks * heads, length, width) for each in (query, key, value))
    factor = width**-0.5 if scale is None else scale
    scores, shares = _scratch.of(q.dtype, 2, len(q), length, length)
    torch.baddbmm(q.new_empty(()), q, k.transpose(1, 2), beta=0, alpha=factor, out=scores)
    if mask is not None:
        scores.view(blocks, heads, length, length).add_(mask)
    torch.softmax(scores, -1, out=shares)
    return torch.bmm(shares, v).view(blocks, heads, length, width)


class _Scratch(threading.local):
    """Memory of a thread for what does not outlive a call: 12 MiB got from the system anew cost more than the call."""

    def __init__(self) -> None:
        self._held: dict[torch.dtype, torch.Tensor] = {}

    def of(self, dtype: torch.dtype, *shape: int) -> torch.Tensor:
        """An array of this shape, of any content; the last one of the thread is overwritten."""
        count = math.prod(shape)
        if dtype not in self._held or self._held[dtype].numel() < count:
            with torch.inference_mode(mode=False):  # what is made in that mode can be written to in no other
                self._held[dtype] = torch.empty(count, dtype=dtype)
        return self._held[dtype][:count].view(shape)


_scratch = _Scratch()


@cache
def _products_are_faster() -> bool:
    """Whether they are on this processor, in bfloat16; tried once."""
    q, k, v = torch.randn(3, *_TRIAL, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    products, own = shortest(
        [partial(by_products, q, k, v, None, None), partial(scaled_dot_product_attention, q, k, v)], _TRIES
    )
    return products < _WORTH_IT * own
