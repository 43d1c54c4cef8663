"""Dense models: one vector per input, computed by sentence-transformers' modules called one after the other."""

from collections.abc import Sequence

import numpy as np
from sentence_transformers.sentence_transformer.modules import Normalize

from embedfleet_server.engine.protocols import Encoded, Item, ModelInfo, Rows, Side, Token
from embedfleet_server.models.faults import told
from embedfleet_server.models.forward import Forward, Modules
from embedfleet_server.models.tokenizing import Tokenizing


class DenseModel:
    """A loaded dense model (`engine.protocols.Model`)."""

    def __init__(self, info: ModelInfo, tokenizing: Tokenizing, forward: "DenseForward") -> None:
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
        """Vectors of the batch, shape (len(batch), native_dimensions), float32, C-contiguous, in the batch's order."""
        rows = np.empty((len(batch), self.info.native_dimensions), dtype=np.float32)
        for indices in self._forward.pieces(batch):
            rows[indices] = self._forward([batch[index] for index in indices])
        return rows

    def peak_mib(self) -> float | None:
        """What the last batch took of its device's memory beyond the weights; None before the first."""
        return self._forward.peak_mib()

    def close(self) -> None:
        """Forget the weights, so that their memory can be used again."""
        self._forward.close()


class DenseForward(Forward):
    """The forward of a dense model."""

    def __call__(self, piece: Sequence[Encoded]) -> Rows:
        """Vectors of inputs with one prompt length, shape (len(piece), native_dimensions)."""
        rows: Rows = self.run(piece)["sentence_embedding"].float().cpu().numpy()
        return rows


def normalizes(modules: Modules) -> bool:
    """Whether the last of the modules gives vectors length 1."""
    last = modules[-1]
    return isinstance(last, Normalize) and last.module_output_name == "sentence_embedding"
