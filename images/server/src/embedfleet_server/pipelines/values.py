"""What flows from step to step. Rows of models are those of `engine.rows`; the rest is here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from embedfleet_server.engine.rows import AnyRows, Offsets, Rows


@dataclass(frozen=True, slots=True)
class Texts:
    """What an input brings: one text or several, and the query that reranking asks about them."""

    texts: Sequence[str]
    query: str | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """Where a chunk lies: characters `start` to `stop` of text number `of`."""

    of: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Chunks:
    """Pieces of texts, in the order of the texts."""

    texts: Sequence[str]
    pieces: Sequence[Piece]
    query: str | None = None
    sources: Sequence[str] = ()
    """The texts themselves."""


@dataclass(frozen=True, slots=True)
class Scores:
    """A score for each text, shape (n,), float32."""

    values: Rows


@dataclass(frozen=True, slots=True)
class Codes:
    """Quantised vectors, (n, bytes) int8; `ranges` (2, d) are those of Int8, by which they are read.

    With `offsets`, row i has the vectors from `offsets[i]` to before `offsets[i + 1]`.
    """

    values: NDArray[Any]
    dimensions: int
    ranges: Rows | None = None
    offsets: Offsets | None = None


Value = Texts | Chunks | Scores | Codes | AnyRows
