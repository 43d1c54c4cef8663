"""The self-test: known inputs, and how close two models' rows of them are. Pure.

How close is a cosine, the least over the inputs: of vectors (Dense, Sparse), of each token's vector (MultiVector), of
all scores taken as one vector (Rerank, whose rows are a number or a few).
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embedfleet.api.models import Task
from embedfleet_server.engine.protocols import Encoded, Item, Model, Pair
from embedfleet_server.engine.rows import AnyRows, Ragged, SparseRows

LEAST = {"float32": 0.99999, "bfloat16": 0.999, "float16": 0.999}
"""The least cosine to float32, by precision (requirement S2)."""
QUERY = "How does a fox get past a sleeping dog?"
TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "fox",
    "def area(radius: float) -> float:\n    return 3.14159 * radius ** 2",
    "Der Zug nach München fährt um 17:45 Uhr von Gleis 9 ab; bitte Vorsicht an der Bahnsteigkante!",
    "In 1969, 650 million people watched the first steps on the Moon, 384,400 kilometres away from the Earth.",
    "An embedding maps a text to a vector of numbers, so that texts of like meaning lie close to each other. Distance "
    "is measured by the angle between two vectors, whose cosine is 1 for the same direction and 0 for a right angle.",
)
"""Short and long, words and numbers and code, more than one language; some 150 tokens in all."""
_TYPES: dict[Task, str | None] = {"Dense": None, "Rerank": None, "Sparse": "document", "MultiVector": "document"}


def items(task: Task) -> list[Item]:
    """The known inputs for a model of `task`."""
    return [Pair(QUERY, text) for text in TEXTS] if task == "Rerank" else list(TEXTS)


def encoded(model: Model, known: Sequence[Item]) -> list[Encoded]:
    """Inputs as the model computes them, without a prompt; documents where queries are computed otherwise."""
    return model.encode(known, "", _TYPES[model.info.task])


def closeness(rows: AnyRows, exact: AnyRows) -> float:
    """The least cosine between rows and the exact ones; NaN where one is not finite, -1 where the shapes differ."""
    if type(rows) is not type(exact):
        return -1.0
    if isinstance(rows, Ragged) and isinstance(exact, Ragged):
        if not np.array_equal(rows.offsets, exact.offsets):
            return -1.0
        return _least(rows.vectors, exact.vectors)
    if isinstance(rows, SparseRows) and isinstance(exact, SparseRows):
        return _least(rows.dense(), exact.dense()) if rows.dimensions == exact.dimensions else -1.0
    return _least(np.asarray(rows), np.asarray(exact))


def score_closeness(rows: AnyRows, exact: AnyRows) -> float:
    """The same of a Rerank model: all its scores as one vector."""
    return closeness(np.asarray(rows).reshape(1, -1), np.asarray(exact).reshape(1, -1))


def close(task: Task, rows: AnyRows, exact: AnyRows) -> float:
    """`closeness` as it is taken for a model of `task`."""
    return score_closeness(rows, exact) if task == "Rerank" else closeness(rows, exact)


def is_close(cosine: float, precision: str) -> bool:
    """Whether rows in `precision` are as close to float32 as they must be; never where they are not finite."""
    return cosine >= LEAST[precision]


def shown(cosine: float) -> str:
    """A cosine in words, never rounded up to a bound."""
    return "not finite" if math.isnan(cosine) else f"{math.floor(cosine * 1e6) / 1e6:.6f}"


def _least(rows: NDArray[np.float32], exact: NDArray[np.float32]) -> float:
    if rows.shape != exact.shape:
        return -1.0
    left, right = rows.astype(np.float64), exact.astype(np.float64)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    both_empty = ~left.any(axis=1) & ~right.any(axis=1)
    cosines = (left * right).sum(axis=1) / np.where(lengths > 0, lengths, 1.0)
    return float(np.where(both_empty, 1.0, cosines).min(initial=1.0))
