"""What dense models and rerankers have in common: one row of numbers for each input."""

from abc import abstractmethod
from collections.abc import Callable, Sequence

import numpy as np

from embedfleet_server.engine.protocols import Encoded, Item, ModelInfo, Rows, Side, Token
from embedfleet_server.models.faults import told
from embedfleet_server.models.forward import Forward, KeepsBits
from embedfleet_server.models.tokenizing import PairTokenizing, Tokenizing


class ArrayForward(Forward):
    """A forward that gives an array."""

    @abstractmethod
    def __call__(self, piece: Sequence[Encoded]) -> Rows:
        """Rows of a piece, shape (len(piece), native_dimensions), float32."""

    def launched(self, piece: Sequence[Encoded]) -> Callable[[], Rows]:
        """The same, waited for when it is called: on a GPU the next piece is laid out while this one is computed."""
        rows = self(piece)
        return lambda: rows


class ArrayModel(KeepsBits):
    """A loaded model whose rows are those of one array (`engine.protocols.Model`)."""

    _forward: ArrayForward

    def __init__(self, info: ModelInfo, tokenizing: Tokenizing | PairTokenizing, forward: ArrayForward) -> None:
        self.info = info
        self._tokenizing = tokenizing
        self._forward = forward

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
    def forward(self, batch: Sequence[Encoded]) -> Rows:
        """Rows of the batch, shape (len(batch), native_dimensions), float32, C-contiguous, in the batch's order."""
        rows = np.empty((len(batch), self.info.native_dimensions), dtype=np.float32)
        launched = [
            (indices, self._forward.launched([batch[index] for index in indices]))
            for indices in self._forward.pieces(batch)
        ]
        for indices, made in launched:
            rows[indices] = made()
        return rows

    def peak_mib(self) -> float | None:
        """What the last batch took of its device's memory beyond the weights; None before the first."""
        return self._forward.peak_mib()

    def close(self) -> None:
        """Forget the weights, so that their memory can be used again."""
        self._forward.close()
