"""Attention over texts that stand in one row of tokens: each sees itself only. Registered with transformers.

Texts of one length are computed together, so that nothing is padded. Which tokens of a text see which is what the
model's own mask says (causal, a window), asked for each length.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

from embedfleet_server.models.segments import Run

NAME = "embedfleet_segments"
"""The attention's name in a model's configuration."""
_CHANGING = ("softcap", "position_bias", "s_aux", "head_mask")  # arguments of other attentions that change the result


class CannotPack(Exception):
    """A model's attention is not of the kind that is computed here; the message says why."""


@dataclass(slots=True)
class Sees:
    """Which tokens see which, by the model's own function of places in the row."""

    function: Callable[..., Any]
    known: dict[int, torch.Tensor | None] = field(default_factory=dict)

    def of(self, run: Run) -> torch.Tensor | None:
        """The mask of a text of the run, (length, length); None where each token sees all."""
        if run.length not in self.known:
            first = torch.tensor(0)  # of the batch and of the heads: all have the same mask
            places = torch.arange(run.start, run.start + run.length)
            made = self.function(first, first, places.unsqueeze(1), places.unsqueeze(0))
            mask = torch.as_tensor(made).expand(run.length, run.length)
            self.known[run.length] = None if bool(mask.all()) else mask.contiguous()
        return self.known[run.length]


def _sees(*, mask_function: Callable[..., Any], **_: Any) -> Sees:
    """In place of a mask for the whole row; the signature is transformers'."""
    return Sees(mask_function)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    *,
    scaling: float | None = None,
    segments: list[Run] | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within each text of a row, shapes (1, heads, tokens, width) to (1, tokens, heads, width).

    Called by a model's layers; the signature is transformers'. Raises `CannotPack`.
    """
    sees, found = _checked(query, attention_mask, segments, more)
    if (groups := query.shape[1] // key.shape[1]) > 1:
        key, value = (each.repeat_interleave(groups, dim=1) for each in (key, value))
    rows = [each[0].transpose(0, 1) for each in (query, key, value)]
    parts = []
    for run in found:
        q, k, v = (_of(each, run) for each in rows)
        made = scaled_dot_product_attention(q, k, v, attn_mask=sees.of(run), scale=scaling)
        parts.append(made.transpose(1, 2).flatten(0, 1))
    return torch.cat(parts).unsqueeze(0), None


def _checked(
    query: torch.Tensor, mask: Any, segments: list[Run] | None, more: Mapping[str, Any]
) -> tuple[Sees, list[Run]]:
    if segments is None:
        raise CannotPack("its layers are not told where texts begin and end")
    if changing := [name for name in _CHANGING if more.get(name) is not None]:
        raise CannotPack(f"its attention takes {', '.join(changing)}")
    if not isinstance(mask, Sees):
        raise CannotPack("it masks its attention in a way of its own")
    if query.shape[0] != 1 or query.shape[2] != segments[-1].stop:
        raise CannotPack("its attention is not over the tokens of the texts alone")
    return mask, segments


def _of(row: torch.Tensor, run: Run) -> torch.Tensor:
    """The run's part of a row (tokens, heads, width), as (texts, heads, length, width)."""
    return row[run.start : run.stop].reshape(run.count, run.length, *row.shape[1:]).transpose(1, 2)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, _sees)
