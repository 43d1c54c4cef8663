"""Texts in one row of tokens: where each begins, and how tokens are counted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedfleet_server.models.segments import Row, Run, hiding, positions, rounded, row
from tests.support.texts import mixed_texts

pytestmark = pytest.mark.requirement("S2")
LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=20)


@given(lengths=LENGTHS)
def test_every_token_has_its_place(lengths: list[int]) -> None:
    """A text's tokens stand next to each other and belong to it; what belongs to none is filling."""
    made = row(lengths)
    ends = np.cumsum(lengths)
    for text, (end, length) in enumerate(zip(ends, lengths, strict=True)):
        places = made.places[end - length : end]
        assert places.tolist() == list(range(places[0], places[0] + length))
        assert set(made.owners[places]) == {text}
    assert (made.owners == -1).sum() == len(made.owners) - sum(lengths)


@given(lengths=LENGTHS)
def test_runs_are_the_row_and_no_text_is_in_two_blocks(lengths: list[int]) -> None:
    """One run begins where another ends; a block that is not shared is one text and nothing else."""
    made = row(lengths)
    assert [run.start for run in made.runs] == [0, *(run.stop for run in made.runs[:-1])]
    assert made.runs[-1].stop == len(made.owners) == rounded(len(made.owners))
    held = [text for run in made.runs for block in _blocks_of(made, run) for text in set(block) - {-1}]
    assert sorted(held) == list(range(len(lengths)))
    alone = [block for run in made.runs if not run.shared for block in _blocks_of(made, run)]
    assert all(len(set(block)) == 1 for block in alone)


def _blocks_of(made: Row, run: Run) -> list[list[int]]:
    blocks: list[list[int]] = made.owners[run.start : run.stop].reshape(run.count, run.length).tolist()
    return blocks


def test_short_texts_share_blocks_and_long_ones_have_their_own() -> None:
    """Twenty texts of eight tokens fill two blocks and half of a third; two of 200 stand alone, and are not masked."""
    found = row([8] * 20 + [200] * 2).runs
    assert found == (Run(0, 2, 200, shared=False), Run(400, 2, 64, shared=True), Run(528, 1, 48, shared=True))


def test_little_of_a_row_is_filling() -> None:
    """Of mixed lengths, less than a twentieth."""
    lengths = [len(text.split()) * 2 for text in mixed_texts(40)]
    made = row(lengths)
    assert len(made.owners) <= 1.05 * sum(lengths)


def test_rows_have_few_lengths() -> None:
    """Up to 2048 tokens, as most pieces have, and beyond that, as a text alone may."""
    assert len({rounded(tokens) for tokens in range(1, 2049)}) == 52
    assert rounded(2049) == rounded(2304) == 2304


@given(lengths=LENGTHS, data=st.data())
def test_of_a_text_the_first_tokens_are_seen(lengths: list[int], data: st.DataObject) -> None:
    """As many as are said of each; filling is seen, by itself alone, since a token must see something."""
    seen = [data.draw(st.integers(1, length)) for length in lengths]
    made = hiding(row(lengths), lengths, seen)
    assert made.seen is not None
    assert made.seen[made.owners == -1].all()
    for text, (first, count) in enumerate(zip(made.first, seen, strict=True)):
        assert np.flatnonzero(made.seen & (made.owners == text)).tolist() == list(range(first, first + count))


@given(lengths=LENGTHS)
def test_positions_begin_anew_with_each_text(lengths: list[int]) -> None:
    """As they would in each text alone."""
    made = positions(np.full(sum(lengths), 7, np.int64), lengths, None)
    assert made.tolist() == [place for length in lengths for place in range(length)]


def test_positions_behind_the_padding() -> None:
    """RoBERTa's: from the padding's id on; a token that is the padding itself stands there and is not counted."""
    ids = np.array([5, 6, 5, 1, 6, 5], np.int64)
    assert positions(ids, [2, 4], 1).tolist() == [2, 3, 2, 1, 3, 4]
