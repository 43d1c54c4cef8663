"""The tokens' vectors of a dense model, as its pooling sees them: for late chunking (see `engine.views`)."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from embedfleet_server.engine.protocols import Encoded, Item, ModelInfo, Side, Token
from embedfleet_server.engine.rows import Offsets, Ragged
from embedfleet_server.engine.views import tokens_of
from embedfleet_server.models.faults import told
from embedfleet_server.models.forward import Forward, KeepsBits
from embedfleet_server.models.packed import Packed, Tokens
from embedfleet_server.models.tokenizing import PairTokenizing, Tokenizing


class TokenForward(Forward):
    """The modules before the pooling."""

    in_rows = True

    def __call__(self, piece: Sequence[Encoded]) -> Ragged:
        """A vector for each token of a piece, special ones too."""
        if self.packed is not None:
            whole = torch.cat(self._packed(piece, self.packed)).float()
            return Ragged(self.transfers.fetch(whole)(), _offsets(piece))
        embedded = self.run(piece)["token_embeddings"].float().cpu().numpy()
        return Ragged.of([embedded[row, : len(one.token_ids)] for row, one in enumerate(piece)])

    @torch.inference_mode()
    def _packed(self, piece: Sequence[Encoded], packed: Packed) -> Tokens:
        """The same where texts stand in one row; the transformer is the only module then."""
        return self.in_row(piece, packed)


def _offsets(piece: Sequence[Encoded]) -> Offsets:
    return np.cumsum([0, *(len(one.token_ids) for one in piece)], dtype=np.int64)


class TokenModel(KeepsBits):
    """A view of a loaded dense model (`engine.protocols.Model`), over its weights."""

    _forward: TokenForward

    def __init__(self, info: ModelInfo, tokenizing: Tokenizing | PairTokenizing, forward: TokenForward) -> None:
        self.info = replace(
            info, name=tokens_of(info.name), task="MultiVector", dimensions=info.native_dimensions, normalized=False
        )
        self._tokenizing, self._forward = tokenizing, forward

    def encode(
        self, items: Sequence[Item], prompt: str, input_type: str | None = None, side: Side | None = None
    ) -> list[Encoded]:
        """See `Tokenizing.encode`."""
        return self._tokenizing.encode(items, prompt, side)

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
        """Let go of the weights."""
        self._forward.close()
