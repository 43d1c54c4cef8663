"""The steps that ask no model, each against what it is defined as."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers.util.quantization import quantize_embeddings

from embedfleet.api.pipelines import Pool, Quantize
from embedfleet_server.engine.protocols import Token
from embedfleet_server.engine.rows import Ragged, Rows
from embedfleet_server.pipelines import operations
from embedfleet_server.pipelines.errors import StepFailed
from embedfleet_server.pipelines.values import Chunks, Piece, Scores, Texts

pytestmark = pytest.mark.requirement("G1")


def vectors(count: int, dimensions: int = 6) -> Rows:
    return np.random.default_rng(5).standard_normal((count, dimensions)).astype(np.float32)


@given(st.integers(0, 200), st.integers(1, 50), st.data())
def test_windows_cover_everything(count: int, size: int, data: st.DataObject) -> None:
    """Each thing is in a window, windows share `overlap` things, none is larger than `size`, and none is idle."""
    overlap = data.draw(st.integers(0, size - 1))
    made = operations.windows(count, size, overlap)
    assert {place for start, stop in made for place in range(start, stop)} == set(range(count))
    assert all(0 < stop - start <= size for start, stop in made)
    assert all(before[1] - after[0] == overlap for before, after in itertools.pairwise(made))
    assert all(after[1] > before[1] for before, after in itertools.pairwise(made))


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ('He said "no." Then 3.5 km.', ['He said "no."', "Then 3.5 km."]),
        ("A title\n\nA body\nof two lines.", ["A title", "A body\nof two lines."]),
        ("\u4eca\u65e5\u306f\u3002\u660e\u65e5\u306f\uff1f", ["\u4eca\u65e5\u306f\u3002", "\u660e\u65e5\u306f\uff1f"]),
        ("  spaces around  ", ["spaces around"]),
        ("", []),
        (" \n ", []),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    """Cut after a full stop before a space, at an empty line, after a stop of Chinese or Japanese."""
    assert [text[start:stop] for start, stop in operations.sentences(text)] == sentences


@given(st.text(alphabet="ab.!? \n\u3002\u00e9", max_size=80))
def test_sentences_lose_nothing_but_spaces(text: str) -> None:
    """Whatever the text: in order, not overlapping, and between them nothing but white space."""
    places = operations.sentences(text)
    kept = "".join(text[start:stop] for start, stop in places)
    assert "".join(kept.split()) == "".join(text.split())
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(places))


def test_chunks_know_their_characters() -> None:
    """By tokens whose places are bytes: the chunks' places are characters, and cut the text as the tokens do."""
    text = "na\u00efve caf\u00e9 \U0001f600 end"
    tokens, at = [Token(0, "", special=True, start=None, stop=None)], 0
    for word in text.split():
        start = len(text[: text.index(word, at)].encode())
        tokens.append(Token(1, word, special=False, start=start, stop=start + len(word.encode())))
    places = operations.token_places(text, tokens)
    assert places[0] is None
    assert [text[a:b] for a, b in filter(None, places)] == text.split()
    made = operations.chunked(Texts([text]), [[*filter(None, places)]], 2, 1)
    assert list(made.texts) == ["na\u00efve caf\u00e9", "caf\u00e9 \U0001f600", "\U0001f600 end"]
    assert [text[piece.start : piece.stop] for piece in made.pieces] == list(made.texts)
    with pytest.raises(StepFailed, match="nothing in the text"):
        operations.chunked(Texts([" "]), [[]], 2, 1)


def test_pooling() -> None:
    """Mean, maximum, and the mean with weights, of an input's vectors; of ragged rows one for each row."""
    given, weights = vectors(3), np.array([1.0, 0.0, 3.0], np.float32)
    np.testing.assert_allclose(operations.pooled(given, Pool(by="Mean")), given.mean(axis=0, keepdims=True), rtol=1e-5)
    np.testing.assert_array_equal(operations.pooled(given, Pool(by="Max")), given.max(axis=0, keepdims=True))
    wanted = (given[0] + 3 * given[2])[None, :] / 4
    np.testing.assert_allclose(operations.pooled(given, Pool(by="Weighted"), Scores(weights)), wanted, rtol=1e-5)
    chunks = Chunks(["a", "", "bcd"], [Piece(0, 0, 1), Piece(0, 1, 1), Piece(0, 1, 4)])
    np.testing.assert_allclose(operations.pooled(given, Pool(by="Weighted"), chunks), wanted, rtol=1e-5)
    ragged = operations.pooled(Ragged.of([given[:1], given[1:]]), Pool())
    np.testing.assert_allclose(ragged, [given[0], given[1:].mean(axis=0)], rtol=1e-5)


@pytest.mark.parametrize(
    ("weights", "why"),
    [([1.0, 2.0], "2 weights for 3 vectors"), ([1.0, -1.0, 0.0], "0 or more"), ([0.0] * 3, "above 0")],
)
def test_weights_that_weigh_nothing(weights: list[float], why: str) -> None:
    """Too few, negative, or all 0: the input fails with what must hold."""
    with pytest.raises(StepFailed, match=why):
        operations.pooled(vectors(3), Pool(by="Weighted"), Scores(np.array(weights, np.float32)))


def test_rows_of_numbers() -> None:
    """Side by side, of length 1, the first so many; what does not fit says what must hold."""
    left, right = vectors(3, 4), vectors(3, 2)
    np.testing.assert_array_equal(operations.concatenated([left, right]), np.hstack([left, right]))
    np.testing.assert_allclose(np.linalg.norm(operations.normalized(left), axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(operations.normalized(np.zeros((1, 4), np.float32)), np.zeros((1, 4)))
    np.testing.assert_array_equal(operations.truncated(left, 3), left[:, :3])
    assert operations.truncated(left, 3).flags.c_contiguous
    with pytest.raises(StepFailed, match="must be as many"):
        operations.concatenated([left, right[:2]])
    with pytest.raises(StepFailed, match="at most 4"):
        operations.truncated(left, 5)


def test_quantised_as_sentence_transformers_does() -> None:
    """Binary, and Int8 over the vectors' own range or a given one, number for number; the ranges are told."""
    given = vectors(20, 16)
    binary = operations.quantised(given, Quantize(to="Binary"))
    np.testing.assert_array_equal(binary.values, quantize_embeddings(given, "binary"))
    own = operations.quantised(given, Quantize(to="Int8"))
    np.testing.assert_array_equal(own.values, quantize_embeddings(given, "int8", ranges=own.ranges))
    fixed = operations.quantised(given[:1], Quantize(to="Int8", limit_thousandths=1500))
    ranges = np.stack([np.full(16, -1.5), np.full(16, 1.5)]).astype(np.float32)
    np.testing.assert_array_equal(fixed.ranges, ranges)
    inside = np.clip(given[:1], -1.5, 1.5)
    np.testing.assert_array_equal(fixed.values, quantize_embeddings(inside, "int8", ranges=ranges))
    ragged = operations.quantised(Ragged.of([given[:2], given[2:5]]), Quantize(to="Binary"))
    np.testing.assert_array_equal(ragged.values, binary.values[:5])
    assert ragged.offsets is not None
    assert ragged.offsets.tolist() == [0, 2, 5]
    with pytest.raises(StepFailed, match="limitThousandths"):
        operations.quantised(given[:1], Quantize(to="Int8"))


def test_late_chunking_pools_the_tokens_of_each_piece() -> None:
    """The mean over tokens that share a character with the piece; special tokens belong to none."""
    given = vectors(4)
    places = [None, (0, 3), (4, 8), None]
    made = operations.late(given, places, [Piece(0, 0, 3), Piece(0, 2, 8)], unit=False)
    np.testing.assert_allclose(made, [given[1], given[1:3].mean(axis=0)], rtol=1e-6)
    unit = operations.late(given, places, [Piece(0, 0, 8)], unit=True)
    assert np.linalg.norm(unit) == pytest.approx(1)
    with pytest.raises(StepFailed, match="hold no token"):
        operations.late(given, places, [Piece(0, 8, 9)], unit=False)
