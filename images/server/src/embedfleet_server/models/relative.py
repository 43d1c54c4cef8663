"""MPNet over texts that stand in one row: transformers' own has neither an attention to choose nor bounds of texts.

Its scores have a bias for each head that depends on how far apart two tokens stand. A text's tokens are next to each
other in a block, so that they are as far apart there as in the text, and one table serves every block; pairs of two
texts are masked.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import MPNetModel

from embedfleet_server.models.attention import Sees, within
from embedfleet_server.models.segments import Row, Run

Features = dict[str, Any]
_STEP = 64  # the table is made anew for longer blocks, of a length that is a multiple of it


class Bias:
    """What is added to scores for the distance of two tokens, for all heads; asked of the model once for each size."""

    def __init__(self, made: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """`made` gives the table (1, heads, n, n) for an array of shape (1, n)."""
        self._made = made
        self._table = torch.empty(1, 0, 0, 0)

    def of(self, length: int) -> torch.Tensor:
        """For a block of so many tokens, shape (1, heads, length, length)."""
        table = self._table
        if table.shape[-1] < length:
            table = self._table = self._made(torch.empty(1, -(-length // _STEP) * _STEP))
        return table[:, :, :length, :length]


@dataclass(slots=True)
class Biased(Sees):
    """Which tokens see which, and how strongly by their distance."""

    bias: Bias | None = None

    def of(self, run: Run, row: Row, dtype: torch.dtype) -> torch.Tensor | None:
        """What is added to the scores of a run's blocks: (blocks, heads, length, length), blocks 1 where all alike."""
        if run not in self.known and self.bias is not None:
            mask = Sees(self.function).of(run, row, dtype)
            bias = self.bias.of(run.length)
            self.known[run] = bias if mask is None else bias + mask
        return self.known[run]


class Rows(nn.Module):
    """An MPNet that takes a row of texts, over the weights of `model`, which is left as it is; inference only."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.config = model.config
        self.layers = nn.ModuleList(Layer(layer) for layer in model.encoder.layer)
        self._embeddings = model.embeddings
        self._bias = Bias(model.encoder.compute_position_bias)

    def forward(self, features: Features) -> Features:
        """As sentence-transformers' module is called; `segments` say where texts stand."""
        x = self._embeddings(input_ids=features["input_ids"], position_ids=features["position_ids"])
        sees = Biased(_all, bias=self._bias)
        for layer in self.layers:
            x = layer(x, sees, segments=features["segments"])
        return {"token_embeddings": x}


class Layer(nn.Module):
    """One of MPNet's layers over a row of texts, by its own parts, which have their names (see `layers`)."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.attention, self.intermediate, self.output = layer.attention, layer.intermediate, layer.output

    def forward(self, hidden_states: torch.Tensor, attention_mask: Sees, *, segments: Row) -> torch.Tensor:
        """Shape (1, tokens, width) to the same."""
        own: Any = self.attention.attn
        x = hidden_states[0]
        query, key, value = (part(x).view(len(x), own.num_attention_heads, -1) for part in (own.q, own.k, own.v))
        seen = within(query, key, value, segments, attention_mask, None).reshape(x.shape)
        x = self.attention.LayerNorm(own.o(seen) + x)
        made: torch.Tensor = self.output(self.intermediate(x), x)
        return made.unsqueeze(0)


def rows(model: object) -> Rows | None:
    """The model in a form for rows; None where it is none of this kind."""
    return Rows(model) if type(model) is MPNetModel else None


def _all(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Every token sees every other."""
    return torch.ones((), dtype=torch.bool)
