"""What goes into one request, and what is computed once."""

from importlib import import_module

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedfleet.chunks import MOST_COVERED, Bounds, split
from embedfleet.stream import Recent, Result

WORDS = st.lists(st.sampled_from("abcdefg") | st.none(), max_size=80)


@given(WORDS, st.integers(1, 5), st.integers(1, 30))
def test_every_place_is_a_text_a_copy_or_an_error(texts: list[str | None], inputs: int, window: int) -> None:
    """Each place is covered once; a copy has the text of its source, which is no copy and not out of the window."""
    covered: dict[int, str | None] = {}
    sources = set()
    for chunk in split(texts, Bounds(inputs), window=window, keep_bad=True):  # type: ignore[arg-type]  # None is the point
        assert len(chunk.texts) <= inputs
        assert chunk.start == len(covered)
        covered |= {chunk.place(row): text for row, text in enumerate(chunk.texts)}
        sources |= {chunk.place(row) for row in range(len(chunk.texts))}
        for to, source in chunk.copies:
            assert source in sources
            assert to - source <= window
            covered[to] = covered[source]
        covered |= {error.index: None for error in chunk.errors}
        assert sorted(covered) == list(range(chunk.start + chunk.count))
    assert [covered[index] for index in range(len(texts))] == texts


@given(WORDS, st.integers(1, 5), st.integers(1, 30), st.booleans())
def test_rows_of_copies_are_those_of_their_text(texts: list[str | None], inputs: int, window: int, known: bool) -> None:
    """However the rows are put together, whole or as a stream that forgets, row i is text i's."""
    chunks = list(split(texts, Bounds(inputs), window=window, keep_bad=True))  # type: ignore[arg-type]  # None is the point
    expected = [np.nan if text is None else float(ord(text)) for text in texts]
    result, stream, recent = Result(len(texts) if known else None), Result(None, stream=True), Recent()
    for chunk in reversed(chunks):
        for one in (result, stream):
            one.place(chunk, 1)[:, 0] = [ord(text) for text in chunk.texts]
            one.settle(chunk)
    rows, given_out = result.rows(), []
    for chunk in chunks:
        block = stream.take(chunk)
        recent.complete(chunk, block)
        given_out += block[:, 0].tolist()
        block[:] = -1
    assert np.array_equal([] if rows is None else rows[:, 0], expected, equal_nan=True)
    assert np.array_equal(given_out, expected, equal_nan=True)


def test_a_text_out_of_the_window_is_computed_again() -> None:
    """Memory is bounded: what lies too far back is forgotten, and with it the rows that are kept for it."""
    chunks = list(split(["a", *map(str, range(20)), "a"], Bounds(4), window=10))
    assert sum(chunk.texts.count("a") for chunk in chunks) == 2
    assert [chunk.floor for chunk in chunks[:3]] == [-6, -2, 2]


def test_a_chunk_of_copies_is_bounded() -> None:
    """A million equal texts are not one chunk."""
    chunks = list(split(["a"] * 10_000))
    assert [chunk.count for chunk in chunks] == [MOST_COVERED, MOST_COVERED, 10_000 - 2 * MOST_COVERED]
    assert [len(chunk.texts) for chunk in chunks] == [1, 0, 1]


@pytest.mark.parametrize(
    ("text", "cap", "tokens"), [("word " * 8, None, 12), ("漢字", None, 4), ("word " * 800, 256, 256), ("", None, 2)]
)
def test_tokens_are_estimated(text: str, cap: int | None, tokens: int) -> None:
    """Four characters a token in ASCII, one elsewhere, two special ones, and never more than the model reads."""
    assert Bounds(text_tokens=cap).estimate(text) == tokens


def test_columns_of_other_libraries_are_texts() -> None:
    """A column of Arrow, pandas or polars is read as the texts it holds."""
    pa, pd, pl = (import_module(name) for name in ("pyarrow", "pandas", "polars"))
    texts = ["a", "ä", "b"]
    for column in (pa.array(texts), pa.chunked_array([["a"], ["ä", "b"]]), pd.Series(texts), pl.Series(texts)):
        assert [text for chunk in split(column) for text in chunk.texts] == texts
