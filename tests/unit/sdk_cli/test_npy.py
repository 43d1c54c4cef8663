"""An .npy file of a number of rows that nobody knew at its beginning."""

import io
from pathlib import Path

import numpy as np
import pytest

from embedfleet.cli import npy
from embedfleet.errors import ProtocolError

ROWS = np.arange(12, dtype=np.float32).reshape(6, 2)


@pytest.mark.parametrize("cuts", [[6], [1, 5], [2, 2, 2]])
def test_arrays_become_one(cuts: list[int]) -> None:
    """However the rows come, NumPy reads back all of them in their order."""
    out = io.BytesIO()
    assert npy.write(out, np.split(ROWS, np.cumsum(cuts)[:-1])) == 6
    np.testing.assert_array_equal(np.load(io.BytesIO(out.getvalue())), ROWS)


def test_the_file_is_the_one_numpy_would_write(tmp_path: Path) -> None:
    """Byte for byte what `numpy.save` makes of the whole array, even of a hundred thousand rows."""
    many = np.zeros((100_000, 2), np.float32)
    out, whole = io.BytesIO(), tmp_path / "whole.npy"
    npy.write(out, (many[i : i + 7] for i in range(0, len(many), 7)))
    np.save(whole, many)
    assert out.getvalue() == whole.read_bytes()


def test_it_begins_where_the_output_stands() -> None:
    """What the output held before stays; the header is put right after it."""
    out = io.BytesIO()
    out.write(b"before")
    npy.write(out, [ROWS[:3], ROWS[3:]])
    assert out.getvalue().startswith(b"before")
    np.testing.assert_array_equal(np.load(io.BytesIO(out.getvalue()[6:])), ROWS)


def test_no_array_writes_nothing() -> None:
    """Without rows their length is unknown, and nothing is written."""
    out = io.BytesIO()
    assert npy.write(out, []) == 0
    assert out.getvalue() == b""


def test_rows_of_another_length_are_refused() -> None:
    """A service whose model changed half-way gives no array."""
    with pytest.raises(ProtocolError, match="vectors of 2 numbers, then of 3"):
        npy.write(io.BytesIO(), [ROWS, np.zeros((1, 3), np.float32)])
