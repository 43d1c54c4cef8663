"""The steps that ask no model: pure functions of values. Shapes: vectors are (n, d) float32."""

import re
from collections.abc import Callable, Sequence

import numpy as np

from embedfleet.api.pipelines import Pool, Quantize
from embedfleet_server.engine.protocols import Token
from embedfleet_server.engine.quantizing import Precision, quantized, ranges_of
from embedfleet_server.engine.rows import Ragged, Rows
from embedfleet_server.pipelines.errors import StepFailed
from embedfleet_server.pipelines.values import Chunks, Codes, Piece, Scores, Texts

Change = Callable[[Rows], Rows]
"""Something done to vectors."""
_CLOSING = r"[\"'\u201d\u2019)\]]*"
_WIDE_STOP = (
    r"[\u3002\uff01\uff1f]+[\u300d\u300f\u201d\u2019\uff09]*"  # of Chinese and Japanese, with no space after it
)
_SENTENCE = re.compile(rf"\S.*?(?:[.!?\u2026]{_CLOSING}(?=\s)|{_WIDE_STOP}|(?=\n[^\S\n]*\n)|\Z)", re.DOTALL)
"""From the first character that is no space to a full stop before a space, an empty line, or the end."""


def windows(count: int, size: int, overlap: int) -> list[tuple[int, int]]:
    """Places `start` to before `stop` of each window over `count` things; the last ends at the end."""
    step = size - overlap
    starts = range(0, max(1, count - overlap), step) if count else range(0)
    return [(start, min(start + size, count)) for start in starts]


def sentences(text: str) -> list[tuple[int, int]]:
    """Characters `start` to before `stop` of each sentence of `text`."""
    return [(found.start(), found.start() + len(found[0].rstrip())) for found in _SENTENCE.finditer(text)]


def token_places(text: str, tokens: Sequence[Token], before: int = 0) -> list[tuple[int, int] | None]:
    """Characters of each token in `text`; None of special tokens and those of a prompt of `before` bytes."""
    places = _characters(text)
    made: list[tuple[int, int] | None] = []
    for token in tokens:
        if token.start is None or token.stop is None or token.stop <= before or token.start == token.stop:
            made.append(None)
        else:
            made.append((places[max(0, token.start - before)], places[token.stop - before]))
    return made


def _characters(text: str) -> Sequence[int]:
    """For each place in the text's UTF-8, its end too, the character that it belongs to."""
    if text.isascii():
        return range(len(text) + 1)
    lengths = [len(character.encode()) for character in text]
    return [*np.repeat(np.arange(len(text)), lengths).tolist(), len(text)]


def chunked(given: Texts, units: Sequence[Sequence[tuple[int, int]]], size: int, overlap: int) -> Chunks:
    """Chunks of `size` units, which are characters `start` to before `stop` of each text, in order.

    Raises `StepFailed` for a text without any.
    """
    texts: list[str] = []
    pieces: list[Piece] = []
    for of, (text, own) in enumerate(zip(given.texts, units, strict=True)):
        if not own:
            raise StepFailed("invalid_input", "there is nothing in the text to make a chunk of")
        for first, last in windows(len(own), size, overlap):
            start, stop = own[first][0], max(own[last - 1][1], own[first][1])
            pieces.append(Piece(of, start, stop))
            texts.append(text[start:stop])
    return Chunks(texts, pieces, given.query, given.texts)


def late(vectors: Rows, places: Sequence[tuple[int, int] | None], pieces: Sequence[Piece], *, unit: bool) -> Rows:
    """Late chunking (arXiv 2409.04701): the mean of the vectors of each piece's tokens, (pieces, d) float32.

    `vectors` (tokens, d) are those of one forward of the whole text, `places` their characters. A token belongs to
    each piece that it shares a character with; a piece without one is `StepFailed`.
    """
    owned = [place is not None for place in places]
    starts = np.array([place[0] for place in places if place is not None], np.int64)
    stops = np.array([place[1] for place in places if place is not None], np.int64)
    kept = vectors[np.array(owned, np.bool_)]
    made = np.empty((len(pieces), vectors.shape[1]), np.float32)
    for index, piece in enumerate(pieces):
        inside = (starts < piece.stop) & (stops > piece.start)
        if not inside.any():
            raise StepFailed("invalid_input", f"characters {piece.start} to {piece.stop} hold no token of the model")
        made[index] = kept[inside].mean(axis=0, dtype=np.float64)
    return normalized(made) if unit else made


def pooled(given: Rows | Ragged, pool: Pool, weights: Scores | Chunks | None = None) -> Rows:
    """One vector of all of an array's, (1, d); of ragged rows one for each, (n, d). Raises `StepFailed`."""
    if isinstance(given, Ragged):
        return np.concatenate([pooled(given.row(index), pool) for index in range(len(given))])
    if not len(given):
        raise StepFailed("invalid_input", "there is no vector to pool")
    if pool.by == "Max":
        return np.asarray(given.max(axis=0, keepdims=True), np.float32)
    if pool.by == "Mean":
        return np.asarray(given.mean(axis=0, keepdims=True, dtype=np.float64), np.float32)
    assert weights is not None
    shares = _shares(weights, len(given))
    return np.asarray((shares @ given.astype(np.float64))[None, :], np.float32)


def _shares(weights: Scores | Chunks, count: int) -> Rows:
    given = weights.values if isinstance(weights, Scores) else [piece.stop - piece.start for piece in weights.pieces]
    made = np.asarray(given, np.float64)
    if made.shape != (count,):
        raise StepFailed("shape", f"there are {len(made)} weights for {count} vectors: there must be one for each")
    if (made < 0).any() or not made.any():
        raise StepFailed("invalid_weights", "weights must be 0 or more, and one of them above 0")
    shares: Rows = made / made.sum()
    return shares


def concatenated(given: Sequence[Rows]) -> Rows:
    """Side by side, (n, all dimensions); `StepFailed` unless all have as many rows."""
    if len({len(rows) for rows in given}) > 1:
        counts = ", ".join(str(len(rows)) for rows in given)
        raise StepFailed("shape", f"the steps it reads give {counts} vectors: they must be as many")
    return np.concatenate(given, axis=1)


def normalized(given: Rows) -> Rows:
    """Each vector with length 1, taken in float64; a vector of zeros stays so."""
    lengths = np.sqrt(np.einsum("ij,ij->i", given, given, dtype=np.float64))[:, None]
    lengths[lengths == 0] = 1
    return np.asarray(given / lengths, np.float32)


def truncated(given: Rows, dimensions: int) -> Rows:
    """The first `dimensions` of each vector; `StepFailed` where there are fewer."""
    if given.shape[1] < dimensions:
        raise StepFailed("shape", f"dimensions is {dimensions}: it must be at most {given.shape[1]}, the vectors' own")
    return np.ascontiguousarray(given[:, :dimensions])


def each(given: Rows | Ragged, change: Change) -> Rows | Ragged:
    """`change` of the vectors, be they rows or those of ragged rows."""
    return Ragged(change(given.vectors), given.offsets) if isinstance(given, Ragged) else change(given)


def quantised(given: Rows | Ragged, quantize: Quantize) -> Codes:
    """See `engine.quantizing`; Int8 without a limit takes its steps from these vectors, of which there must be two."""
    vectors, offsets = (given.vectors, given.offsets) if isinstance(given, Ragged) else (given, None)
    precision: Precision = "binary" if quantize.to == "Binary" else "int8"
    dimensions = vectors.shape[1]
    if precision == "binary":
        return Codes(quantized(vectors, precision), dimensions, None, offsets)
    try:
        ranges = ranges_of(vectors) if quantize.limit_thousandths is None else _ranges(quantize, dimensions)
    except ValueError as error:
        raise StepFailed(
            "invalid_input", f"{error}; limitThousandths gives ranges that hold for every input"
        ) from error
    return Codes(quantized(vectors, precision, ranges), dimensions, ranges, offsets)


def _ranges(quantize: Quantize, dimensions: int) -> Rows:
    assert quantize.limit_thousandths is not None
    limit = np.full(dimensions, quantize.limit_thousandths / 1000, np.float32)
    return np.stack([-limit, limit])
