"""Dense models: one vector per input, computed by sentence-transformers' modules called one after the other."""

from collections.abc import Sequence

import numpy as np
from sentence_transformers.sentence_transformer.modules import Normalize

from embedfleet_server.engine.protocols import Encoded, Rows
from embedfleet_server.models.array_model import ArrayForward, ArrayModel
from embedfleet_server.models.forward import Features, Modules


class DenseModel(ArrayModel):
    """A loaded dense model: vectors."""


class DenseForward(ArrayForward):
    """The forward of a dense model."""

    def __call__(self, piece: Sequence[Encoded]) -> Rows:
        """Vectors of inputs with one prompt length, shape (len(piece), native_dimensions)."""
        if self.packed is None:
            return _vectors(self.run(piece))
        parts = self.run_packed(piece, self.packed)
        order = np.argsort([index for indices, _ in parts for index in indices])
        rows: Rows = np.concatenate([_vectors(features) for _, features in parts])[order]
        return rows


def _vectors(features: Features) -> Rows:
    rows: Rows = features["sentence_embedding"].float().cpu().numpy()
    return rows


def normalizes(modules: Modules) -> bool:
    """Whether the last of the modules gives vectors length 1."""
    last = modules[-1]
    return isinstance(last, Normalize) and last.module_output_name == "sentence_embedding"
