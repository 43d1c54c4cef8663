"""Attention over texts that stand in one row of tokens: each sees itself only. Registered with transformers.

Blocks of one length are computed together (see `segments`). Which tokens of a text see which is what the model's own
mask says (causal, a window), asked for each length.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface

from embedfleet_server.models.scores import attended, each_by_itself
from embedfleet_server.models.segments import Row, Run

NAME = "embedfleet_segments"
"""The attention's name in a model's configuration."""
CHANGING = ("softcap", "position_bias", "s_aux", "head_mask")
"""Arguments of other attentions that change the result."""


class CannotPack(Exception):
    """A model's attention is not of the kind that is computed here; the message says why."""


@dataclass(slots=True)
class Sees:
    """Which tokens see which, by the model's own function of places in the row."""

    function: Callable[..., Any]
    known: dict[Run, torch.Tensor | None] = field(default_factory=dict)

    def of(self, run: Run, row: Row, dtype: torch.dtype) -> torch.Tensor | None:
        """What is added to the scores of a run's blocks, to be broadcast; None where each token sees all."""
        if run not in self.known:
            seen = _both(self._within(run), _own(run, row))
            self.known[run] = None if seen is None else torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, -inf)
        return self.known[run]

    def _within(self, run: Run) -> torch.Tensor | None:
        """By the model, (blocks, 1, length, length); one block for all where none is shared. None where all see all.

        A model's function may know where texts begin, by their positions, so that each shared block is asked for.
        """
        count = run.count if run.shared else 1
        first = torch.tensor(0)  # of the batch and of the heads: all have the same mask
        places = torch.arange(run.start, run.start + count * run.length).view(count, 1, run.length)
        made = self.function(first, first, places.unsqueeze(3), places.unsqueeze(2))
        seen = torch.as_tensor(made).expand(count, 1, run.length, run.length)
        return None if bool(seen.all()) else seen


def _own(run: Run, row: Row) -> torch.Tensor | None:
    """The tokens of the same text, those of them that are seen: (blocks, 1, length, length). None where that is all."""
    if not run.shared and row.seen is None:
        return None
    owners = torch.from_numpy(row.owners[run.start : run.stop].reshape(run.count, 1, run.length))
    own = owners.unsqueeze(3) == owners.unsqueeze(2)
    if row.seen is None:
        return own
    return own & torch.from_numpy(row.seen[run.start : run.stop].reshape(run.count, 1, 1, run.length))


def _both(one: torch.Tensor | None, other: torch.Tensor | None) -> torch.Tensor | None:
    return other if one is None else one if other is None else one & other


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
    segments: Row | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within each text of a row, shapes (1, heads, tokens, width) to (1, tokens, heads, width).

    Called by a model's layers; the signature is transformers'. Raises `CannotPack`.
    """
    sees, row = _checked(query, attention_mask, segments, more)
    if (groups := query.shape[1] // key.shape[1]) > 1:
        key, value = (each.repeat_interleave(groups, dim=1) for each in (key, value))
    query, key, value = (each[0].transpose(0, 1) for each in (query, key, value))
    return within(query, key, value, row, sees, scaling).unsqueeze(0), None


def within(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, row: Row, sees: Sees, scaling: float | None
) -> torch.Tensor:
    """Attention of a row's tokens within their texts, all of shape (tokens, heads, width)."""
    parts = []
    form = each_by_itself if row.apart else attended
    for run in row.runs:
        q, k, v = (_of(each, run) for each in (query, key, value))
        made = form(q, k, v, sees.of(run, row, q.dtype), scaling)
        parts.append(made.transpose(1, 2).flatten(0, 1))
    if left := len(row.owners) - row.runs[-1].stop:
        parts.append(query.new_zeros(left, *query.shape[1:]))  # filling that is in no run
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _checked(query: torch.Tensor, mask: Any, segments: Row | None, more: Mapping[str, Any]) -> tuple[Sees, Row]:
    if segments is None:
        raise CannotPack("its layers are not told where texts begin and end")
    if changing := [name for name in CHANGING if more.get(name) is not None]:
        raise CannotPack(f"its attention takes {', '.join(changing)}")
    if not isinstance(mask, Sees):
        raise CannotPack("it masks its attention in a way of its own")
    if query.shape[0] != 1 or query.shape[2] != len(segments.owners):
        raise CannotPack("its attention is not over the tokens of the texts alone")
    return mask, segments


def _of(row: torch.Tensor, run: Run) -> torch.Tensor:
    """The run's part of a row (tokens, heads, width), as (blocks, heads, length, width)."""
    return row[run.start : run.stop].reshape(run.count, run.length, *row.shape[1:]).transpose(1, 2)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, _sees)
