"""Matryoshka: what may be asked for, and the vectors that come of it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedfleet_server.app.dimensions import allowed, choose, shrink
from embedfleet_server.engine.errors import InvalidRequest
from tests.support.fake_model import INFO

pytestmark = pytest.mark.requirement("S2")
NUMBERS = st.floats(-(2.0**100), 2.0**100, width=32)
PLAIN = replace(INFO, native_dimensions=8, dimensions=8, matryoshka=())


@pytest.mark.parametrize(
    ("info", "choices"),
    [
        (PLAIN, [8]),
        (replace(PLAIN, dimensions=5), [8, 5]),
        (replace(PLAIN, matryoshka=(8, 4, 2)), [8, 4, 2]),
        (replace(PLAIN, dimensions=4, matryoshka=(16, 4, 2)), [8, 4, 2]),
    ],
)
def test_what_may_be_asked_for(info: object, choices: list[int]) -> None:
    """The model's own length, the manifest's, and those it was trained for, never more than it has."""
    assert allowed(info) == choices  # type: ignore[arg-type]


def test_unasked_the_manifest_decides_and_the_rest_is_refused() -> None:
    """Without `dimensions` the manifest's hold; one the model cannot give is refused naming those it can."""
    info = replace(PLAIN, dimensions=4, matryoshka=(4, 2))
    assert [choose(info, asked) for asked in (None, 8, 4, 2)] == [4, 8, 4, 2]
    for asked in (3, 9):
        with pytest.raises(InvalidRequest, match="can give 8 or 4 or 2") as caught:
            choose(info, asked)
        assert caught.value.param == "dimensions"


@given(
    st.integers(1, 8),
    st.lists(st.lists(NUMBERS, min_size=8, max_size=8), max_size=5),
)
def test_shrunk_rows(size: int, values: list[list[float]]) -> None:
    """Rows keep their first numbers' direction, have length 1 where the model normalises, and stay C-contiguous."""
    rows = np.array(values, np.float32).reshape(-1, 8)
    if size < 8:
        np.testing.assert_array_equal(shrink(rows, size, normalized=False), rows[:, :size])
    made = shrink(rows, size, normalized=True)
    assert made.shape == (len(rows), size)
    assert made.dtype == np.float32
    assert made.flags.c_contiguous
    if size < 8:
        lengths = np.linalg.norm(made.astype(np.float64), axis=1)
        whole = np.linalg.norm(rows[:, :size].astype(np.float64), axis=1)
        np.testing.assert_allclose(lengths[whole > 1e-30], 1, rtol=1e-6)


def test_rows_without_a_length() -> None:
    """A bad row stays NaN and a row of zeros stays zero: neither raises, neither touches another row."""
    rows = np.array([[np.nan] * 8, [0] * 8, [3, 4, 0, 0, 1, 1, 1, 1]], np.float32)
    made = shrink(rows, 2, normalized=True)
    np.testing.assert_array_equal(made, np.array([[np.nan, np.nan], [0, 0], [0.6, 0.8]], np.float32))
