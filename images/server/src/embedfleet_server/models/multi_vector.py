"""Multi-vector models (ColBERT): a vector for each token of an input."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from embedfleet_server.engine.protocols import Encoded, Item, ModelInfo, Side, Token
from embedfleet_server.engine.rows import Ragged
from embedfleet_server.models.faults import told
from embedfleet_server.models.forward import Features, Forward, KeepsBits
from embedfleet_server.models.packed import Packed, Tokens
from embedfleet_server.models.tokenizing import Tokenizing


@dataclass(frozen=True, slots=True)
class Expansion:
    """How short queries are filled up: to `length` tokens, with `token`.

    `attend`: whether the query's own tokens see those; `fixed`: whether longer queries are cut to `length`.
    """

    length: int
    token: int
    attend: bool
    fixed: bool


@dataclass(frozen=True, slots=True)
class Late(Encoded):
    """An input as `input_type` has it; its first `own` tokens are its own, the rest expansion."""

    input_type: str | None = None
    own: int = 0


class LateTokenizing:
    """Queries and documents may be cut at different lengths, and queries filled up."""

    def __init__(self, plain: Tokenizing, query: Tokenizing, document: Tokenizing, expansion: Expansion | None) -> None:
        self._plain = plain
        self.spelling = plain.spelling
        self._by_type = {"query": query, "document": document}
        self._expansion = expansion

    def encode(
        self, items: Sequence[Item], prompt: str, input_type: str | None = None, side: Side | None = None
    ) -> list[Encoded]:
        """As `Tokenizing.encode`; token ids that the client made are cut and filled up too."""
        encoded = self._by_type.get(input_type or "", self._plain).encode(items, prompt, side)
        return [self._late(one, input_type) for one in encoded]

    def _late(self, encoded: Encoded, input_type: str | None) -> Late:
        own = len(encoded.token_ids)
        ids = list(encoded.token_ids)
        if self._expansion is not None and input_type == "query":
            ids += [self._expansion.token] * (self._expansion.length - own)
        return Late(ids, encoded.truncated, input_type, own)


class MultiVectorModel(KeepsBits):
    """A loaded multi-vector model (`engine.protocols.Model`)."""

    _forward: "LateForward"

    def __init__(self, info: ModelInfo, tokenizing: LateTokenizing, forward: "LateForward") -> None:
        self.info = info
        self._tokenizing = tokenizing
        self._forward = forward

    def encode(
        self, items: Sequence[Item], prompt: str, input_type: str | None = None, side: Side | None = None
    ) -> list[Encoded]:
        """See `LateTokenizing.encode`."""
        return self._tokenizing.encode(items, prompt, input_type, side)

    def tokenize(self, texts: Sequence[str], *, special: bool) -> list[list[Token]]:
        """See `Spelling.tokenize`."""
        return self._tokenizing.spelling.tokenize(texts, special=special)

    def decode(self, ids: Sequence[Sequence[int]], *, special: bool) -> list[str]:
        """See `Spelling.decode`."""
        return self._tokenizing.spelling.decode(ids, special=special)

    @told
    def forward(self, batch: Sequence[Encoded]) -> Ragged:
        """Vectors of the batch's tokens, its rows in the batch's order."""
        made = self._forward.each(batch, self._forward)
        order = np.argsort([index for indices, _ in made for index in indices])
        return Ragged.join([rows for _, rows in made]).take(order)

    def peak_mib(self) -> float | None:
        """What the last batch took of its device's memory beyond the weights; None before the first."""
        return self._forward.peak_mib()

    def close(self) -> None:
        """Forget the weights, so that their memory can be used again."""
        self._forward.close()


class LateForward(Forward):
    """The forward of a multi-vector model. `attend`: whether tokens see the expansion beside them."""

    in_rows = True

    def __init__(
        self,
        modules: Sequence[torch.nn.Module],
        *,
        device: str,
        pad: int,
        attend: bool,
        packed: Packed | None = None,
    ) -> None:
        super().__init__(modules, device=device, pad=pad, packed=packed)
        self._attend = attend

    @torch.inference_mode()
    def __call__(self, piece: Sequence[Encoded]) -> Ragged:
        """The vectors that count for scores, of inputs of one type."""
        if self.packed is None:
            return _counted(self.run(piece))
        parts = self.run_packed(piece, self.packed)
        order = np.argsort([index for indices, _ in parts for index in indices])
        return Ragged.join([_counted(features) for _, features in parts]).take(order)

    def in_row(self, piece: Sequence[Encoded], packed: Packed) -> Tokens:
        """With what the others do not see, as `features`."""
        hidden = not self._attend and any(_own(encoded) < len(encoded.token_ids) for encoded in piece)
        ids = [encoded.token_ids for encoded in piece]
        return packed(ids, seen=[*map(_own, piece)] if hidden else None, form=self.form())

    def kind(self, encoded: Encoded) -> str | None:
        """The modules' masks take one input type per call."""
        return encoded.input_type if isinstance(encoded, Late) else None

    def given(self, piece: Sequence[Encoded]) -> Mapping[str, Any]:
        """Sentence-transformers calls the input type a task."""
        return {"task": self.kind(piece[0])}

    def features(self, piece: Sequence[Encoded]) -> Features:
        """With the places of expansion tokens, which count for scores whether or not the others see them."""
        features = super().features(piece)
        own = [*map(_own, piece)]
        if all(count == len(encoded.token_ids) for count, encoded in zip(own, piece, strict=True)):
            return features
        whole = features["attention_mask"]
        places = torch.arange(whole.shape[1], device=whole.device)
        expanded = whole.bool() & (places >= torch.tensor(own, device=whole.device).unsqueeze(1))
        features["query_expansion_positions"] = expanded
        if not self._attend:
            features["attention_mask"] = whole.masked_fill(expanded, 0)
        return features


def _own(encoded: Encoded) -> int:
    """How many tokens are its own, and no expansion."""
    return encoded.own if isinstance(encoded, Late) else len(encoded.token_ids)


def _counted(features: Features) -> Ragged:
    """The vectors that the modules' mask leaves."""
    counts = features["attention_mask"].bool()
    vectors = features["token_embeddings"][counts].float().cpu().numpy()
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts.sum(dim=1).cpu().numpy(), out=offsets[1:])
    return Ragged(vectors, offsets)
