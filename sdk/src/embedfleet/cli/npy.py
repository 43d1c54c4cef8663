"""An .npy file whose number of rows is known only at its end."""

from collections.abc import Iterable
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from embedfleet.errors import ProtocolError


def write(out: BinaryIO, arrays: Iterable[NDArray[np.float32]]) -> int:
    """Write arrays of shape (k, d) as one float32 array of shape (rows, d) from where `out` stands; returns rows.

    `out` must be seekable. NumPy leaves room in the header for the first dimension to grow, so that the true count is
    put in its place at the end; until then it is 0. No array at all writes nothing.
    """
    start, rows, width = out.tell(), 0, 0
    for array in arrays:
        if not rows:
            width = array.shape[1]
            _header(out, 0, width)
        if array.shape[1] != width:
            raise ProtocolError(f"vectors of {width} numbers, then of {array.shape[1]}: the model changed meanwhile")
        out.write(np.ascontiguousarray(array, dtype="<f4").data)
        rows += len(array)
    if rows:
        _patch(out, start, rows, width)
    return rows


def _patch(out: BinaryIO, start: int, rows: int, width: int) -> None:
    end = out.tell()
    out.seek(start)
    _header(out, rows, width)
    out.seek(end)


def _header(out: BinaryIO, rows: int, width: int) -> None:
    fields = {"descr": "<f4", "fortran_order": False, "shape": (rows, width)}
    np.lib.format.write_array_header_1_0(out, fields)
