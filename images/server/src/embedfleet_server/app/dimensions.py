"""Matryoshka: the first so many dimensions of a vector, where the model was trained for that (arXiv 2205.13147)."""

import numpy as np

from embedfleet_server.engine.errors import InvalidRequest
from embedfleet_server.engine.protocols import ModelInfo, Rows


def allowed(info: ModelInfo) -> list[int]:
    """The dimensions a request may ask for, largest first: the model's own, the manifest's, those trained for."""
    trained = (size for size in info.matryoshka if size <= info.native_dimensions)
    return sorted({info.native_dimensions, info.dimensions, *trained}, reverse=True)


def choose(info: ModelInfo, requested: int | None) -> int:
    """Length of the vectors to answer with; `InvalidRequest` names what the model can give instead."""
    if requested is None:
        return info.dimensions
    choices = allowed(info)
    if requested in choices:
        return requested
    words = " or ".join(str(size) for size in choices)
    raise InvalidRequest(f"dimensions is {requested}: model {info.name!r} can give {words}", "dimensions")


def shrink(rows: Rows, dimensions: int, *, normalized: bool) -> Rows:
    """The first `dimensions` of each row, (n, dimensions) float32 C-contiguous, of length 1 again when `normalized`.

    Rows of NaN stay NaN; a row whose kept part is all zero stays zero.
    """
    if dimensions == rows.shape[1]:
        return rows
    kept: Rows = np.ascontiguousarray(rows[:, :dimensions])
    if not normalized:
        return kept
    # In float64, so that the length is 1 to the last float32 digit and neither over- nor underflows.
    lengths = np.sqrt(np.einsum("ij,ij->i", kept, kept, dtype=np.float64))[:, None]
    lengths[lengths == 0] = 1
    cut: Rows = (kept / lengths).astype(np.float32)
    return cut
