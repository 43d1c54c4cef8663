"""From a reranker's logits to scores: the activations that a model's files may name. Pure.

The forward gives logits, so that one batch serves requests for raw scores and for activated ones.
"""

from collections.abc import Callable, Mapping

import numpy as np

from embedfleet_server.engine.rows import Rows


def _sigmoid(logits: Rows) -> Rows:
    """Without overflow: of exp only arguments below 0 are taken."""
    small = np.exp(-np.abs(logits))
    made: Rows = np.where(logits >= 0, 1, small) / (1 + small)
    return made


def _softmax(logits: Rows) -> Rows:
    grown = np.exp(logits - logits.max(axis=1, keepdims=True))
    made: Rows = grown / grown.sum(axis=1, keepdims=True)
    return made


def _relu(logits: Rows) -> Rows:
    made: Rows = np.maximum(logits, 0)
    return made


ACTIVATIONS: Mapping[str, Callable[[Rows], Rows]] = {
    "Identity": lambda logits: logits,
    "Sigmoid": _sigmoid,
    "Softmax": _softmax,
    "Tanh": np.tanh,
    "ReLU": _relu,
}
"""By the name of torch's class."""


def scores(logits: Rows, activation: str) -> Rows:
    """Scores of pairs, from logits (n, labels): shape (n,) where there is one label, else (n, labels); float32.

    `activation` is a name in `ACTIVATIONS`: `ModelInfo.activation` for the model's own, "Identity" for raw scores.
    NaN stays NaN.
    """
    made = ACTIVATIONS[activation](logits).astype(np.float32, copy=False)
    return made[:, 0] if made.shape[1] == 1 else made
