"""Texts in one row of tokens: where each begins, and how tokens are counted."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedfleet_server.models.segments import Run, positions, runs

pytestmark = pytest.mark.requirement("S2")
LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=20)


@given(lengths=LENGTHS)
def test_runs_hold_every_text_once_in_order(lengths: list[int]) -> None:
    """Taken apart again, the runs are the lengths, one behind the other without a gap."""
    found = runs(lengths)
    assert [run.length for run in found for _ in range(run.count)] == lengths
    assert [run.start for run in found] == [0, *(run.stop for run in found[:-1])]
    assert all(one.length != next_.length for one, next_ in itertools.pairwise(found))


def test_like_lengths_stand_together() -> None:
    """Two of three tokens and one of five: two runs."""
    assert runs([3, 3, 5]) == [Run(0, 2, 3), Run(6, 1, 5)]


@given(lengths=LENGTHS)
def test_positions_begin_anew_with_each_text(lengths: list[int]) -> None:
    """As they would in each text alone."""
    made = positions(np.full(sum(lengths), 7, np.int64), lengths, None)
    assert made.tolist() == [place for length in lengths for place in range(length)]


def test_positions_behind_the_padding() -> None:
    """RoBERTa's: from the padding's id on; a token that is the padding itself stands there and is not counted."""
    ids = np.array([5, 6, 5, 1, 6, 5], np.int64)
    assert positions(ids, [2, 4], 1).tolist() == [2, 3, 2, 1, 3, 4]
