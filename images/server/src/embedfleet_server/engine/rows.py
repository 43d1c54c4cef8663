"""What a forward gives, by task: rows of one length, sparse rows, or rows of several vectors each. Pure.

Dense        array (n, d) float32
Rerank       array (n, labels) float32: the logits, before the model's activation (see `scoring`)
Sparse       `SparseRows`: for each row its active dimensions and their values
MultiVector  `Ragged`: for each row as many vectors as it has tokens

All of them have a length in rows and are taken apart and put together by whole arrays, never row by row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
"""Vectors as rows, shape (n, d)."""

Offsets = NDArray[np.int64]
"""Shape (n + 1,), ascending from 0: row i has the entries from `offsets[i]` to before `offsets[i + 1]`."""

Positions = Sequence[int] | NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SparseRows:
    """Rows of which few dimensions are not zero (CSR). Within a row `indices` (int32) ascend; `values` are float32."""

    indices: NDArray[np.int32]
    values: Rows
    offsets: Offsets
    dimensions: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, index: int) -> tuple[NDArray[np.int32], Rows]:
        """Active dimensions and values of one row, as views."""
        entries = slice(self.offsets[index], self.offsets[index + 1])
        return self.indices[entries], self.values[entries]

    def take(self, positions: Positions) -> Self:
        """The rows at `positions`, in that order."""
        entries, offsets = _entries(self.offsets, positions)
        return type(self)(self.indices[entries], self.values[entries], offsets, self.dimensions)

    def finite(self) -> NDArray[np.bool_]:
        """Shape (n,): whether all values of a row are finite."""
        return _finite(self.offsets, ~np.isfinite(self.values))

    def dense(self) -> Rows:
        """The same as an array, shape (n, dimensions)."""
        made = np.zeros((len(self), self.dimensions), np.float32)
        made[np.repeat(np.arange(len(self)), np.diff(self.offsets)), self.indices] = self.values
        return made

    @classmethod
    def of(cls, rows: Rows) -> Self:
        """From an array, shape (n, dimensions)."""
        at, indices = np.nonzero(rows)
        offsets = _offsets(np.bincount(at, minlength=len(rows)))
        return cls(indices.astype(np.int32), rows[at, indices].astype(np.float32, copy=False), offsets, rows.shape[1])

    @classmethod
    def empty(cls, count: int, dimensions: int) -> Self:
        """`count` rows with nothing in them."""
        return cls(np.empty(0, np.int32), np.empty(0, np.float32), np.zeros(count + 1, np.int64), dimensions)

    @classmethod
    def join(cls, parts: Sequence["SparseRows"]) -> Self:
        """One after the other; at least one part."""
        indices = np.concatenate([part.indices for part in parts])
        values = np.concatenate([part.values for part in parts])
        return cls(indices, values, _joined([part.offsets for part in parts]), parts[0].dimensions)


@dataclass(frozen=True, slots=True)
class Ragged:
    """Rows of several vectors each: row i is `vectors[offsets[i]:offsets[i + 1]]`; `vectors` (tokens, d) is float32."""

    vectors: Rows
    offsets: Offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def dimensions(self) -> int:
        """Length of every vector."""
        return int(self.vectors.shape[1])

    def row(self, index: int) -> Rows:
        """The vectors of one row, shape (its tokens, d), as a view."""
        return self.vectors[self.offsets[index] : self.offsets[index + 1]]

    def take(self, positions: Positions) -> Self:
        """The rows at `positions`, in that order."""
        entries, offsets = _entries(self.offsets, positions)
        return type(self)(self.vectors[entries], offsets)

    def finite(self) -> NDArray[np.bool_]:
        """Shape (n,): whether all vectors of a row are finite."""
        return _finite(self.offsets, ~finite(self.vectors))

    @classmethod
    def of(cls, rows: Sequence[Rows]) -> Self:
        """From one array per row, each (its tokens, d); at least one."""
        return cls(np.concatenate(rows), _offsets(np.asarray([len(row) for row in rows], np.int64)))

    @classmethod
    def empty(cls, count: int, dimensions: int) -> Self:
        """`count` rows with nothing in them."""
        return cls(np.empty((0, dimensions), np.float32), np.zeros(count + 1, np.int64))

    @classmethod
    def join(cls, parts: Sequence["Ragged"]) -> Self:
        """One after the other; at least one part."""
        vectors = np.concatenate([part.vectors for part in parts])
        return cls(vectors, _joined([part.offsets for part in parts]))


AnyRows = Rows | SparseRows | Ragged
"""What a forward may give."""

_KINDS: dict[str, type[Any]] = {"Sparse": SparseRows, "MultiVector": Ragged}


def problem(rows: AnyRows, count: int, task: str, dimensions: int) -> str | None:
    """Why these cannot be `count` rows of a model of `task` with rows of `dimensions`; None when they can."""
    kind = _KINDS.get(task, np.ndarray)
    if not isinstance(rows, kind):
        return f"gave {type(rows).__name__} where {kind.__name__} was due"
    shape = rows.shape if isinstance(rows, np.ndarray) else (len(rows), rows.dimensions)
    if shape != (count, dimensions):
        return f"gave rows of shape {shape} where {(count, dimensions)} was due"
    values = _values(rows)
    return None if np.issubdtype(values.dtype, np.floating) else f"gave rows of {values.dtype} where float32 was due"


def finite(rows: AnyRows) -> NDArray[np.bool_]:
    """Shape (n,): whether a row holds nothing but finite numbers."""
    if isinstance(rows, np.ndarray):
        return np.asarray(np.isfinite(rows).all(axis=1))
    return rows.finite()


def only(rows: AnyRows, position: int) -> AnyRows:
    """One of the rows, as rows of their own that hold on to nothing else."""
    return rows[[position]] if isinstance(rows, np.ndarray) else rows.take([position])


def weight(rows: AnyRows) -> int:
    """Bytes of the numbers."""
    if isinstance(rows, SparseRows):
        return rows.indices.nbytes + rows.values.nbytes
    return rows.nbytes if isinstance(rows, np.ndarray) else rows.vectors.nbytes


def blank(task: str, count: int, dimensions: int) -> Any:
    """`count` rows that say that there is none: NaN in an array, empty otherwise."""
    if (kind := _KINDS.get(task)) is not None:
        return kind.empty(count, dimensions)
    return np.full((count, dimensions), np.nan, np.float32)


def spread(rows: Any, kept: list[int], total: int) -> Any:
    """`rows` as the rows `kept` (ascending) of `total`; the others are as in `blank`."""
    if len(kept) == total:
        return rows
    if isinstance(rows, np.ndarray):
        made = np.full((total, rows.shape[1]), np.nan, np.float32)
        made[kept] = rows
        return made
    places = np.full(total, len(rows), np.int64)  # the empty row that is put after them
    places[kept] = np.arange(len(kept))
    return rows.join([rows, rows.empty(1, rows.dimensions)]).take(places)


class Collected:
    """The rows of one request, put in as the batches end that computed them.

    Where a row never comes it is NaN in an array, and empty otherwise.
    """

    __slots__ = ("_count", "_dimensions", "_kind", "_lost", "_order", "_parts", "_rows")

    def __init__(self, count: int, task: str, dimensions: int) -> None:
        self._count, self._dimensions = count, dimensions
        self._kind: type[Any] | None = _KINDS.get(task)
        self._rows = np.empty((count if self._kind is None else 0, dimensions), np.float32)
        self._parts: list[Any] = []
        self._order: list[int] = []
        self._lost: list[int] = []

    def put(self, indices: list[int], rows: Any, positions: list[int]) -> None:
        """The rows at `positions` of a batch are those of the inputs `indices`."""
        if self._kind is None:
            self._rows[indices] = rows[positions]
        else:
            self._parts.append(rows.take(positions))
            self._order += indices

    def lose(self, indices: list[int]) -> None:
        """These inputs have no row; whatever was put there does not count."""
        if self._kind is None:
            self._rows[indices] = np.nan
        else:
            self._lost += indices

    def rows(self) -> Any:
        """All rows in the order of the inputs: `AnyRows` of the task."""
        if self._kind is None:
            return self._rows
        if len(self._parts) == 1 and not self._lost and self._order == list(range(self._count)):
            return self._parts[0]
        places = np.empty(self._count, np.int64)
        places[self._order] = np.arange(len(self._order))
        places[self._lost] = len(self._order)  # the row after the last of the parts, which is an empty one
        return self._kind.join([*self._parts, self._kind.empty(1, self._dimensions)]).take(places)


def _values(rows: AnyRows) -> Rows:
    if isinstance(rows, np.ndarray):
        return rows
    return rows.values if isinstance(rows, SparseRows) else rows.vectors


def _offsets(lengths: NDArray[np.int64]) -> Offsets:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _joined(offsets: Sequence[Offsets]) -> Offsets:
    return _offsets(np.concatenate([np.diff(own) for own in offsets]))


def _entries(offsets: Offsets, positions: Positions) -> tuple[NDArray[np.int64], Offsets]:
    """Where the entries of the rows at `positions` are, and the offsets they then have."""
    at = np.asarray(positions, np.int64)
    lengths = offsets[at + 1] - offsets[at]
    made = _offsets(lengths)
    return np.repeat(offsets[at] - made[:-1], lengths) + np.arange(made[-1]), made


def _finite(offsets: Offsets, bad: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which rows hold none of the `bad` entries."""
    fine = np.ones(len(offsets) - 1, np.bool_)
    fine[np.searchsorted(offsets, np.flatnonzero(bad), side="right") - 1] = False
    return fine
