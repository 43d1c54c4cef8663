"""Sparse models (SPLADE): weights of the vocabulary's words for each input, few of them not zero."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from embedfleet_server.engine.protocols import Encoded, Item, ModelInfo, Side, Token
from embedfleet_server.engine.rows import Offsets, SparseRows
from embedfleet_server.models import layout
from embedfleet_server.models.device import is_cpu
from embedfleet_server.models.faults import told
from embedfleet_server.models.forward import Forward, Modules
from embedfleet_server.models.lanes import Lanes
from embedfleet_server.models.packed import Packed
from embedfleet_server.models.splade import LargestFirst, largest_first
from embedfleet_server.models.tokenizing import Tokenizing

# Logits of a piece in bytes; they are made for every token and word, then pooled over the tokens. On a CPU a piece is
# to stay near the cache, on a GPU the pooling's copies must fit beside the model.
_CPU_LOGITS, _GPU_LOGITS = 64 * 2**20, 2**30
_FLOAT = 4


class Computes(Protocol):
    """What makes sparse rows of token ids."""

    def __call__(self, piece: Sequence[Encoded]) -> SparseRows:
        """Sparse rows of a piece."""

    def rows(self, batch: Sequence[Encoded]) -> Iterable[tuple[list[int], SparseRows]]:
        """Those of a batch by pieces, with the pieces' indices."""

    def peak_mib(self) -> float | None:
        """What the last batch took of its device's memory beyond the weights; None where that is not known."""

    def close(self) -> None:
        """Forget the weights."""


@dataclass(frozen=True, slots=True)
class Route:
    """One way from inputs to rows."""

    tokenizing: Tokenizing
    forward: Computes


@dataclass(frozen=True, slots=True)
class Routed(Encoded):
    """An input of a model that has several routes, with the one it takes."""

    route: str = ""


class SparseModel:
    """A loaded sparse model (`engine.protocols.Model`).

    Most have one route. Where queries and documents have one each, `input_type` chooses, and None takes `default`.
    """

    def __init__(self, info: ModelInfo, routes: Mapping[str, Route], default: str) -> None:
        self.info = info
        self._routes = dict(routes)
        self._default = default

    def encode(
        self, items: Sequence[Item], prompt: str, input_type: str | None = None, side: Side | None = None
    ) -> list[Encoded]:
        """See `Tokenizing.encode`."""
        name = input_type if input_type in self._routes else self._default
        encoded = self._routes[name].tokenizing.encode(items, prompt, side)
        return encoded if len(self._routes) == 1 else [Routed(one.token_ids, one.truncated, name) for one in encoded]

    def tokenize(self, texts: Sequence[str], *, special: bool) -> list[list[Token]]:
        """See `Spelling.tokenize`."""
        return self._routes[self._default].tokenizing.spelling.tokenize(texts, special=special)

    def decode(self, ids: Sequence[Sequence[int]], *, special: bool) -> list[str]:
        """See `Spelling.decode`."""
        return self._routes[self._default].tokenizing.spelling.decode(ids, special=special)

    @told
    def forward(self, batch: Sequence[Encoded]) -> SparseRows:
        """Sparse rows of the batch, in its order."""
        parts: list[SparseRows] = []
        order: list[int] = []
        for name, group in self._by_route(batch).items():
            forward = self._routes[name].forward
            for places, rows in forward.rows([batch[index] for index in group]):
                parts.append(rows)
                order += [group[place] for place in places]
        return SparseRows.join(parts).take(np.argsort(order))

    def keep_bits(self, on: bool) -> None:
        """See `engine.invariance.KeepsBits`; weights that are looked up are the same anyway."""
        for forward in self._computed():
            forward.keeps_bits = on

    def bits_kept(self) -> str | None:
        """See `engine.invariance.KeepsBits`."""
        return next((forward.bits_kept() for forward in self._computed()), None)

    def try_lanes(self, found: Lanes | None) -> float | None:
        """See `Forward.try_lanes`; weights that are looked up have no use for them."""
        tried = [forward.try_lanes(found, self.info.max_tokens) for forward in self._computed()]
        return min((share for share in tried if share is not None), default=None)

    def _computed(self) -> list[Forward]:
        return [route.forward for route in self._routes.values() if isinstance(route.forward, Forward)]

    def peak_mib(self) -> float | None:
        """What the last batch took of its device's memory beyond the weights; None where that is not known."""
        known = [route.forward.peak_mib() for route in self._routes.values()]
        return max((mib for mib in known if mib is not None), default=None)

    def close(self) -> None:
        """Forget the weights, so that their memory can be used again."""
        for route in self._routes.values():
            route.forward.close()

    def _by_route(self, batch: Sequence[Encoded]) -> dict[str, list[int]]:
        groups: dict[str, list[int]] = {}
        for index, encoded in enumerate(batch):
            groups.setdefault(encoded.route if isinstance(encoded, Routed) else self._default, []).append(index)
        return groups


class StaticForward:
    """Weights of words that are looked up rather than computed: the query's side of an inference-free SPLADE."""

    def __init__(self, weights: torch.Tensor, max_active: int | None) -> None:
        self._weights = weights.detach().float().cpu()
        self._max_active = max_active

    def peak_mib(self) -> None:
        """Not worth counting: nothing is computed."""

    def rows(self, batch: Sequence[Encoded]) -> Iterable[tuple[list[int], SparseRows]]:
        """All at once: nothing is padded."""
        yield list(range(len(batch))), self(batch)

    @torch.inference_mode()
    def __call__(self, piece: Sequence[Encoded]) -> SparseRows:
        """Each word of an input once, with its weight."""
        at = np.repeat(np.arange(len(piece)), [len(encoded.token_ids) for encoded in piece])
        words = np.concatenate([np.asarray(encoded.token_ids, np.int64) for encoded in piece])
        rows = torch.zeros(len(piece), len(self._weights))
        rows[at, words] = self._weights[words]
        return _sparse(rows if self._max_active is None else _strongest(rows, self._max_active))

    def close(self) -> None:
        """Forget the weights."""
        self._weights = torch.empty(0)


class SparseForward(Forward):
    """The forward of a sparse model; `max_active` is how many dimensions of a row may stay, None for all."""

    def __init__(
        self,
        modules: Modules,
        *,
        device: str,
        pad: int,
        vocabulary: int,
        max_active: int | None,
        packed: Packed | None = None,
    ) -> None:
        bounds = limits(vocabulary, on_cpu=is_cpu(device))
        super().__init__(tuple(largest_first(modules)), device=device, pad=pad, limits=bounds, packed=packed)
        self._max_active = max_active

    @torch.inference_mode()
    def __call__(self, piece: Sequence[Encoded]) -> SparseRows:
        """Sparse rows of a piece."""
        rows = (self._padded(piece) if self.packed is None else self._packed(piece, self.packed)).float()
        if self._max_active is not None:
            rows = _strongest(rows, self._max_active)
        return _sparse(rows)

    def rows(self, batch: Sequence[Encoded]) -> Iterable[tuple[list[int], SparseRows]]:
        """Those of a batch by pieces, with the pieces' indices."""
        return self.each(batch, self)

    def _padded(self, piece: Sequence[Encoded]) -> torch.Tensor:
        return self.run(piece)["sentence_embedding"]

    def _packed(self, piece: Sequence[Encoded], packed: Packed) -> torch.Tensor:
        """SPLADE's texts are pooled where they stand: laid out by text their logits would be copied."""
        pooling = self._modules[-1]
        if len(self._modules) == 2 and isinstance(pooling, LargestFirst):
            ids = [encoded.token_ids for encoded in piece]
            self.peaks.piece(sum(map(len, ids)))
            return torch.stack([pooling.of(logits) for logits in packed(ids, form=self.form())])
        parts = self.run_packed(piece, packed)
        order = torch.tensor([index for indices, _ in parts for index in indices]).argsort()
        return torch.cat([features["sentence_embedding"] for _, features in parts])[order]

    def _most(self, beside: int = 1) -> int | None:
        """No more than its logits' limit, which rows that are computed at a time share."""
        most = super()._most(beside)
        limit = most if self._limits is None else self._limits.tokens // beside
        return limit if most is None or limit is None else min(limit, most)

    def given(self, piece: Sequence[Encoded]) -> Mapping[str, Any]:
        """A sparse auto-encoder keeps so many itself."""
        return {} if self._max_active is None else {"max_active_dims": self._max_active}


def limits(vocabulary: int, *, on_cpu: bool) -> layout.Limits:
    """How a batch is cut so that its logits stay within bounds."""
    tokens = max(1, (_CPU_LOGITS if on_cpu else _GPU_LOGITS) // (_FLOAT * vocabulary))
    if on_cpu:
        return layout.Limits(tokens=min(tokens, layout.CPU.tokens), waste=layout.CPU.waste)
    return layout.Limits(tokens=tokens, waste=tokens)


def _strongest(rows: torch.Tensor, count: int) -> torch.Tensor:
    """The largest `count` values of each row by magnitude, the rest 0."""
    places = rows.abs().topk(min(count, rows.shape[1]), dim=1).indices
    return torch.zeros_like(rows).scatter_(1, places, rows.gather(1, places))


def _sparse(rows: torch.Tensor) -> SparseRows:
    """What is not zero, found on the device, so that little has to leave it."""
    at, indices = rows.nonzero(as_tuple=True)
    offsets = _offsets(at.cpu().numpy(), len(rows))
    return SparseRows(indices.int().cpu().numpy(), rows[at, indices].cpu().numpy(), offsets, rows.shape[1])


def _offsets(at: NDArray[np.int64], count: int) -> Offsets:
    """Offsets of `count` rows from the row of each entry, ascending."""
    return np.searchsorted(at, np.arange(count + 1)).astype(np.int64)
