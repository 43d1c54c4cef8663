"""What dense models and rerankers have in common: one row of numbers for each input."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from embedfleet_server.engine.protocols import Encoded, Item, ModelInfo, Rows, Side, Token
from embedfleet_server.models.faults import told
from embedfleet_server.models.forward import Features, Forward, KeepsBits
from embedfleet_server.models.lanes import Begun
from embedfleet_server.models.tokenizing import PairTokenizing, Tokenizing

Launched = Sequence[tuple[list[int], Callable[[], Rows]]]
"""Indices of a batch's pieces, and what waits for their rows."""


class OnLanes:
    """A batch that lanes compute (`engine.forwards.TellsItsEnd`)."""

    def __init__(self, rows: Callable[[], Rows], begun: Begun[Any]) -> None:
        """`rows` waits for `begun`."""
        self._rows, self._begun = rows, begun

    def __call__(self) -> Rows:
        """Its rows, once they are there."""
        return self._rows()

    @property
    def ended(self) -> float:
        """When they were."""
        return self._begun.ended


class ArrayForward(Forward):
    """A forward that gives an array."""

    @abstractmethod
    def rows(self, features: Features) -> Callable[[], Rows]:
        """What the modules made, shape (texts, native_dimensions), float32; waited for when it is called."""

    def __call__(self, piece: Sequence[Encoded]) -> Rows:
        """Rows of inputs with one prompt length, shape (len(piece), native_dimensions)."""
        return self.launched(piece)()

    def launched(self, piece: Sequence[Encoded]) -> Callable[[], Rows]:
        """The same, waited for when it is called: on a GPU the next piece is laid out while this one is computed."""
        if (small := self.run_compiled(piece)) is not None:
            return self.rows(small)
        if self.packed is None:
            return self.rows(self.run(piece))
        parts = self.run_packed(piece, self.packed)
        order = np.argsort([index for indices, _ in parts for index in indices])
        made = [self.rows(features) for _, features in parts]
        return lambda: np.concatenate([each() for each in made])[order]


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
        return self._rows(len(batch), self._forward.each(batch, self._forward.launched))

    @property
    def launches(self) -> bool:
        """See `engine.forwards.Launches`."""
        return self._forward.device.type == "cuda" or self._forward.lanes is not None

    @told
    def launch(self, batch: Sequence[Encoded]) -> Callable[[], Rows] | None:
        """See `engine.forwards.Launches`: by a GPU, or by lanes where a batch is large enough for them."""
        forward, count = self._forward, len(batch)
        if forward.lanes is None:  # a GPU, which computes later what is called now
            done = forward.each(batch, forward.launched)
            return lambda: self._waited(lambda: self._rows(count, done))
        if (begun := forward.begun(batch, forward.launched)) is None:
            return None
        pieces, made = begun
        rows = partial(self._waited, lambda: self._rows(count, list(zip(pieces, made(), strict=True))))
        return OnLanes(rows, made)

    @told
    def _waited(self, rows: Callable[[], Rows]) -> Rows:
        """What a GPU or a lane could not do is known once its results are waited for."""
        return rows()

    def _rows(self, count: int, launched: Launched) -> Rows:
        rows = np.empty((count, self.info.native_dimensions), dtype=np.float32)
        for indices, made in launched:
            rows[indices] = made()
        return rows

    def peak_mib(self) -> float | None:
        """What the last batch took of its device's memory beyond the weights; None before the first."""
        return self._forward.peak_mib()

    def close(self) -> None:
        """Forget the weights, so that their memory can be used again."""
        self._forward.close()
