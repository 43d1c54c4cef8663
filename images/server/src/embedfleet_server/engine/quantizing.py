"""Vectors in fewer bytes, as sentence-transformers' `quantize_embeddings` makes them. Pure; needs NumPy alone.

float16          2 bytes a dimension; what is beyond its largest number becomes that number
int8, uint8      1 byte: which of 256 equal steps between the dimension's lowest and highest value
binary, ubinary  1 bit: whether the value is above 0, eight to a byte, the first the highest; binary is less 128

The vectors of `Ragged` rows are quantised as they are (`rows.vectors`); their offsets stay.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from embedfleet_server.engine.rows import Rows

Precision = Literal["float16", "int8", "uint8", "binary", "ubinary"]

_STEPS = 255  # between the lowest and the highest of 256 values
_HALF = 128  # from unsigned to signed
_LARGEST = float(np.finfo(np.float16).max)


def ranges_of(vectors: Rows) -> Rows:
    """Lowest and highest value of each dimension, shape (2, d), float32; vectors with NaN do not count.

    Raises `ValueError` for fewer than two vectors, from which no range can be told.
    """
    fine = vectors[np.isfinite(vectors).all(axis=1)]
    if len(fine) < 2:
        raise ValueError(f"ranges need at least 2 finite vectors to be computed from, there are {len(fine)}")
    return np.stack([fine.min(axis=0), fine.max(axis=0)]).astype(np.float32, copy=False)


def quantized(vectors: Rows, precision: Precision, ranges: Rows | None = None) -> NDArray[Any]:
    """`vectors` (n, d) in another type: (n, d), or (n, ceil(d / 8)) for binary and ubinary.

    `ranges` (2, d), of int8 and uint8 only: see `ranges_of`; None computes them from `vectors`. What lies beyond them
    gets the nearest step. A vector of NaN stays one in float16, and is 0 in every whole number.
    """
    if precision == "float16":
        return np.clip(vectors, -_LARGEST, _LARGEST).astype(np.float16)
    if precision in ("binary", "ubinary"):
        bits = np.packbits(vectors > 0, axis=-1)
        return _blank(bits if precision == "ubinary" else _signed(bits), vectors)
    steps = _steps(vectors, ranges)
    return _blank(steps if precision == "uint8" else _signed(steps), vectors)


def check_ranges(ranges: Rows, dimensions: int) -> None:
    """`ValueError` unless these can be the ranges of vectors with so many dimensions."""
    if ranges.shape != (2, dimensions):
        raise ValueError(f"ranges have shape {ranges.shape}; they must have {(2, dimensions)}")
    if not np.isfinite(ranges).all():
        raise ValueError("ranges hold a value that is not finite")
    if (wrong := np.flatnonzero(ranges[0] > ranges[1])).size:
        raise ValueError(f"ranges of dimension {wrong[0]} go from {ranges[0, wrong[0]]} down to {ranges[1, wrong[0]]}")


def _steps(vectors: Rows, ranges: Rows | None) -> NDArray[np.uint8]:
    if not len(vectors):
        return np.zeros(vectors.shape, np.uint8)
    if ranges is None:
        ranges = ranges_of(vectors)
    check_ranges(ranges, vectors.shape[1])
    lowest, highest = ranges.astype(np.float32, copy=False)
    width = (highest - lowest) / _STEPS
    width = np.where(width == 0, 1, width)
    steps: NDArray[np.float32] = np.clip(np.floor((vectors - lowest) / width), 0, _STEPS)
    return np.nan_to_num(steps).astype(np.uint8)


def _signed(values: NDArray[np.uint8]) -> NDArray[np.int8]:
    return (values.astype(np.int16) - _HALF).astype(np.int8)


def _blank(made: NDArray[Any], vectors: Rows) -> NDArray[Any]:
    made[np.isnan(vectors).any(axis=1)] = 0
    return made
