"""Matryoshka: the first so many dimensions of a vector, where the model was trained for that (arXiv 2205.13147)."""

import numpy as np

from embedfleet_server.engine.errors import InvalidRequest
from embedfleet_server.engine.protocols import ModelInfo, Rows


def allowed(info: ModelInfo) -> list[int]:
    """The dimensions a request may ask for, largest first: the model's own, the manifest's, those trained for."""
    trained = (size for size in info.matryoshka if size <= info.native_dimensions)
    return sorted({info.native_dimensions, info.dimensions, *trained}, reverse=True)


def choose(info: ModelInfo, requested: int | None, *, forced: bool = False) -> int:
    """Length of the vectors to answer with; `InvalidRequest` names what the model can give instead.

    `forced` takes any length up to the model's own, trained for or not.
    """
    if requested is None:
        return info.dimensions
    choices = allowed(info)
    if requested in choices or (forced and requested <= info.native_dimensions):
        return requested
    words = f"1 to {info.native_dimensions}" if forced else " or ".join(str(size) for size in choices)
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
    return unit(kept)


def unit(rows: Rows) -> Rows:
    """Each row with length 1, (n, d) float32; rows of NaN stay NaN, a row of zeros stays so.

    Lengths are taken in float64, so that they are 1 to the last float32 digit and neither over- nor underflow.
    """
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))[:, None]
    lengths[lengths == 0] = 1
    made: Rows = (rows / lengths).astype(np.float32)
    return made
