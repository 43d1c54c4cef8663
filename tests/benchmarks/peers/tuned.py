"""What the runtimes' processes share: of several ways to run the model the best is found first, and then measured.

Imports nothing but numpy and the standard library: it runs in the peers' environments.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

LEAST = 0.999
"""The least cosine to float32 at which a precision counts."""
_SIZES = (8, 16, 64)  # texts of a batch that are tried; sorted by length first, so that large ones pad little
_TRIES = 2
Features = dict[str, Any]
Way = Callable[[Sequence[Features]], list[Any]]
"""Computes batches, one array of vectors (texts, width) each."""
Ways = Callable[[str], Mapping[str, Callable[[], Way]]]
"""Of a precision: ways to run the model in it, each made when called."""


def threads() -> int:
    """As many as there are cores for this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Tuned:
    """A runtime in several precisions, each in the way, and each mix with the size of batches, that took least."""

    def __init__(self, ways: Ways) -> None:
        self._ways = ways
        self._best: dict[str, Way] = {}
        self._sizes: dict[tuple[str, str], int] = {}

    def prepare(self, precision: str, ids: Sequence[Sequence[int]], expected: Sequence[Sequence[float]]) -> Any:
        """Choose the way: `ids` are texts of the mixed load, `expected` the vectors of the first of them in float32."""
        cosines, seconds = dict[str, float](), dict[str, float]()
        for name, made in self._ways(precision).items():
            way = made()
            cosines[name] = _cosine(way([_features(ids[: len(expected)])])[0], np.asarray(expected))
            if cosines[name] >= LEAST:
                seconds[name] = min(_seconds(way, ids, _SIZES[1]) for _ in range(_TRIES))
                if seconds[name] == min(seconds.values()):
                    self._best[precision] = way
        chosen = min(seconds, key=seconds.__getitem__) if seconds else None
        far = {name: cosine for name, cosine in cosines.items() if cosine < LEAST}
        return {"way": chosen, "cosine": cosines.get(chosen or ""), "far": far}

    def fit(self, precision: str, mix: str, ids: Sequence[Sequence[int]]) -> Any:
        """Choose the size of batches for a mix."""
        way = self._best[precision]
        sizes = [size for size in _SIZES if size <= len(ids)] or _SIZES[:1]
        taken = {size: min(_seconds(way, ids, size) for _ in range(_TRIES)) for size in sizes}
        self._sizes[precision, mix] = min(taken, key=taken.__getitem__)
        return {"size": self._sizes[precision, mix]}

    def forward(self, precision: str, mix: str, ids: Sequence[Sequence[int]]) -> Any:
        """Seconds of a mix, whose batches are made before the clock runs."""
        return {"seconds": _seconds(self._best[precision], ids, self._sizes[precision, mix])}


def _seconds(way: Way, ids: Sequence[Sequence[int]], size: int) -> float:
    order = sorted(ids, key=len)
    batches = [_features(order[start : start + size]) for start in range(0, len(order), size)]
    began = time.perf_counter()
    way(batches)
    return time.perf_counter() - began


def _features(ids: Sequence[Sequence[int]]) -> Features:
    shape = (len(ids), max(map(len, ids)))
    tokens, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, some in enumerate(ids):
        tokens[row, : len(some)] = some
        mask[row, : len(some)] = 1
    return {"input_ids": tokens, "attention_mask": mask}


def _cosine(made: Any, expected: Any) -> float:
    """The least of the rows'."""
    lengths = np.linalg.norm(made, axis=1) * np.linalg.norm(expected, axis=1)
    return float((np.sum(made * expected, axis=1) / lengths).min())


def handlers(tuned: Tuned) -> dict[str, Callable[..., Any]]:
    """What a runtime's process answers to."""
    return {"ready": dict, "prepare": tuned.prepare, "fit": tuned.fit, "forward": tuned.forward}
