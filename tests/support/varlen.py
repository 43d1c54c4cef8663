"""What `torch.nn.attention.varlen.varlen_attn` is documented to give, text by text, and a GPU where there is one."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from embedfleet_server.models import varlen

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0),
    reason="hardware: no GPU of compute capability 8.0 or later here, which packed attention's kernel needs",
)


def documented(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> torch.Tensor:
    """As the documentation of torch 2.12 and later has it; an `AssertionError` for what the kernel does not take."""
    bounds: list[int] = cu_seq_q.tolist()
    lengths = [stop - start for start, stop in pairwise(bounds)]
    assert (cu_seq_q.dtype, cu_seq_q is cu_seq_k) == (torch.int32, True)
    assert (bounds[0], bounds[-1], len(query), len(key), len(value)) == (0, *(len(query),) * 4)
    assert min(lengths) > 0
    assert max(lengths) == max_q == max_k
    assert scale is None or scale > 0
    assert enable_gqa or query.shape[1] == key.shape[1] == value.shape[1]
    assert all(each.stride(-1) == 1 and each.device == query.device for each in (query, key, value))
    made = []
    for start, stop in pairwise(bounds):
        q, k, v = (each[start:stop].transpose(0, 1) for each in (query, key, value))
        mask = seen(stop - start, *window_size)
        made.append(scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=enable_gqa))
    return torch.cat([each.transpose(0, 1) for each in made])


def without_groups(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    return_aux: Any = None,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
) -> torch.Tensor:
    """The same as torch 2.11 has it: keys with fewer heads are refused."""
    assert return_aux is None
    return documented(
        query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale=scale, window_size=window_size
    )  # fmt: skip


def seen(length: int, before: int, behind: int) -> torch.Tensor:
    """Which of a text's tokens see which, (length, length); -1 is no bound."""
    apart = torch.arange(length) - torch.arange(length).unsqueeze(1)
    all_of_it = torch.ones(length, length, dtype=torch.bool)
    left = all_of_it if before < 0 else apart >= -before
    return left & (all_of_it if behind < 0 else apart <= behind)


STAND_IN = varlen.adapted(documented)
"""In place of torch's kernel, which runs on a GPU only."""
