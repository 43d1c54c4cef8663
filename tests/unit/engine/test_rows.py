"""Rows of every task: taken apart and put together, checked, and what is not finite told by row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from embedfleet_server.engine.rows import AnyRows, Collected, Ragged, SparseRows, blank, finite, problem, spread

pytestmark = pytest.mark.requirement("S3")
_LENGTHS = st.lists(st.integers(0, 4), min_size=1, max_size=8)


def ragged(lengths: list[int]) -> Ragged:
    """Row i holds vectors of i."""
    return Ragged.of([np.full((length, 3), index, np.float32) for index, length in enumerate(lengths)])


def sparse(lengths: list[int]) -> SparseRows:
    """Row i has its first dimensions at i + 1."""
    rows = np.zeros((len(lengths), 5), np.float32)
    for index, length in enumerate(lengths):
        rows[index, :length] = index + 1
    return SparseRows.of(rows)


@given(_LENGTHS, st.data())
def test_take_gives_the_rows_asked_for(lengths: list[int], data: st.DataObject) -> None:
    """Any positions, in any order, more than once; empty rows too."""
    positions = data.draw(st.lists(st.integers(0, len(lengths) - 1)))
    late, few = ragged(lengths).take(positions), sparse(lengths).take(positions)
    assert (len(late), len(few)) == (len(positions), len(positions))
    for place, position in enumerate(positions):
        assert np.array_equal(late.row(place), ragged(lengths).row(position))
        assert np.array_equal(few.row(place)[0], sparse(lengths).row(position)[0])
    assert np.array_equal(few.dense(), sparse(lengths).dense()[positions])


@given(_LENGTHS, _LENGTHS)
def test_join_puts_one_behind_the_other(left: list[int], right: list[int]) -> None:
    """Taken apart again, both are as they were."""
    joined = SparseRows.join([sparse(left), sparse(right)])
    assert np.array_equal(joined.dense(), np.concatenate([sparse(left).dense(), sparse(right).dense()]))
    late = Ragged.join([ragged(left), ragged(right)])
    assert np.diff(late.offsets).tolist() == left + right
    assert np.array_equal(late.take(range(len(left))).vectors, ragged(left).vectors)


@given(_LENGTHS, st.data())
def test_only_the_row_that_is_not_finite_is_told(lengths: list[int], data: st.DataObject) -> None:
    """Empty rows beside it are finite."""
    bad = data.draw(st.sampled_from(range(len(lengths))))
    late, few = ragged(lengths), sparse(lengths)
    late.row(bad)[:1] = np.nan
    few.row(bad)[1][:1] = np.inf
    expected = [index != bad or not length for index, length in enumerate(lengths)]
    assert finite(late).tolist() == finite(few).tolist() == expected


def test_arrays_are_told_by_row() -> None:
    """As ever."""
    rows = np.ones((3, 2), np.float32)
    rows[1, 1] = np.nan
    assert finite(rows).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("rows", "task", "said"),
    [
        (np.ones((2, 5), np.float32), "Dense", None),
        (np.ones((2, 5), np.float32), "Rerank", None),
        (sparse([1, 2]), "Sparse", None),
        (ragged([1, 2]), "MultiVector", "shape (2, 3) where (2, 5)"),
        (sparse([1]), "Sparse", "shape (1, 5) where (2, 5)"),
        (np.ones((2, 5), np.float32), "Sparse", "ndarray where SparseRows"),
        (sparse([1, 2]), "MultiVector", "SparseRows where Ragged"),
        (ragged([1, 2]), "Dense", "Ragged where ndarray"),
        (np.ones((2, 5), np.int64), "Dense", "int64 where float32"),
    ],
)
def test_what_cannot_be_the_rows_is_said(rows: AnyRows, task: str, said: str | None) -> None:
    """Number, length, kind and type."""
    told = problem(rows, 2, task, 5)
    assert told is None if said is None else said in (told or "")


@given(st.permutations(range(6)), st.integers(1, 5), st.sets(st.integers(0, 5)))
def test_a_request_collects_its_rows_from_several_batches(order: list[int], cut: int, lost: set[int]) -> None:
    """In whatever order they end, each row is at its input's place, and what is lost is empty, or NaN in arrays."""
    lengths = [2, 0, 1, 3, 1, 2]
    dense = np.arange(12, dtype=np.float32).reshape(6, 2)
    wholes: list[tuple[str, int, AnyRows]] = [
        ("Sparse", 5, sparse(lengths)), ("MultiVector", 3, ragged(lengths)), ("Dense", 2, dense),
    ]  # fmt: skip
    made = []
    for task, dimensions, whole in wholes:
        collected = Collected(6, task, dimensions)
        for part in (order[:cut], order[cut:]):
            collected.put(part, whole, part)
        collected.lose(sorted(lost))
        made.append(collected.rows())
    for index in range(6):
        kept = index not in lost
        assert len(made[0].row(index)[1]) == (lengths[index] if kept else 0)
        assert np.array_equal(made[1].row(index), ragged(lengths).row(index) if kept else np.empty((0, 3)))
        assert np.array_equal(made[2][index], dense[index] if kept else _nan(2), equal_nan=True)


def test_one_batch_in_order_is_handed_on() -> None:
    """The common case copies nothing twice."""
    collected = Collected(2, "MultiVector", 3)
    collected.put([0, 1], ragged([1, 2, 3]), [1, 2])
    assert np.array_equal(collected.rows().vectors, ragged([1, 2, 3]).vectors[1:])
    lost = Collected(2, "Sparse", 5)
    lost.lose([0, 1])
    assert (len(lost.rows()), len(lost.rows().values)) == (2, 0)


def _nan(length: int) -> NDArray[np.float32]:
    return np.full(length, np.nan, np.float32)


@pytest.mark.parametrize("task", ["Dense", "Sparse", "MultiVector"])
def test_rows_spread_among_those_that_there_are_not(task: str) -> None:
    """What was kept stands at its places, the rest is as if blank: NaN in arrays, empty otherwise."""
    full = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
    rows: AnyRows = full
    if task != "Dense":
        rows = SparseRows.of(full) if task == "Sparse" else Ragged.of([full[:1], full[1:]])
    made, empty = spread(rows, [1, 3], 4), blank(task, 4, 3)
    assert len(made) == len(empty) == 4
    assert spread(rows, [0, 1], 2) is rows
    if isinstance(made, np.ndarray):
        np.testing.assert_array_equal(made[[1, 3]], full)
        assert np.isnan(made[[0, 2]]).all()
    else:
        assert np.diff(made.offsets).tolist() == [0, *np.diff(rows.offsets)[:1], 0, *np.diff(rows.offsets)[1:]]
        assert np.diff(empty.offsets).tolist() == [0] * 4
        np.testing.assert_array_equal(made.row(3)[-1], rows.row(1)[-1])
