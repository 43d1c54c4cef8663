"""What the tasks beside dense embedding give, and how their answers are read; no I/O."""

import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedfleet.errors import ProtocolError
from embedfleet.extras import need
from embedfleet.wire import Rows, excerpt

NPZ = "application/x-npz"


@dataclass(frozen=True, slots=True)
class Ranked:
    """A text with its score; `index` is its place in the texts given."""

    index: int
    score: float
    text: str


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a text. `start` and `stop` are its bytes in the text's UTF-8; None for a special one."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


@dataclass(frozen=True)
class SparseRows:
    """Sparse vectors, as compressed rows: row i has the entries from `offsets[i]` to before `offsets[i + 1]`."""

    indices: NDArray[np.int32]
    """Active dimensions, ascending within a row."""
    values: NDArray[np.float32]
    offsets: NDArray[np.int64]
    """(n + 1,)"""
    dimensions: int
    """The model's vocabulary: the length of a vector written out."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> dict[int, float]:
        """The active dimensions of one row with their values."""
        here = _span(self.offsets, row)
        return dict(zip(self.indices[here].tolist(), self.values[here].tolist(), strict=True))

    def to_dense(self) -> Rows:
        """All written out, shape (n, dimensions), float32."""
        dense = np.zeros((len(self), self.dimensions), np.float32)
        dense[np.repeat(np.arange(len(self)), np.diff(self.offsets)), self.indices] = self.values
        return dense

    def to_scipy(self) -> Any:
        """A `scipy.sparse.csr_array`, shape (n, dimensions). Raises `ExtraMissing` without scipy."""
        sparse = need("scipy.sparse", "scipy", "to_scipy()", package="scipy")
        return sparse.csr_array((self.values, self.indices, self.offsets), shape=(len(self), self.dimensions))


@dataclass(frozen=True)
class TokenRows:
    """A vector for each token: text i has the rows from `offsets[i]` to before `offsets[i + 1]`."""

    vectors: Rows
    """(tokens of all texts, d)"""
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Rows:
        """The vectors of one text, shape (tokens, d)."""
        return self.vectors[_span(self.offsets, row)]

    def __iter__(self) -> Iterator[Rows]:
        return (self[row] for row in range(len(self)))


def _span(offsets: NDArray[np.int64], row: int) -> slice:
    count = len(offsets) - 1
    if not -count <= row < count:
        raise IndexError(f"row {row} of {count}")
    return slice(int(offsets[row % count]), int(offsets[row % count + 1]))


def ranked(scores: Rows, texts: Sequence[str], top: int | None) -> list[Ranked]:
    """The texts, best first; equals as they came."""
    order = np.argsort(-scores, kind="stable")[:top].tolist()
    return [Ranked(index, float(scores[index]), texts[index]) for index in order]


def read_scores(body: bytes, count: int) -> Rows:
    """Scores from an npy file, shape (count,), all finite; `ProtocolError` otherwise."""
    return _finite(_checked("scores", _npy(body), np.float32, (count,)), "scores")


def read_numbers(body: bytes, count: int) -> Rows:
    """A JSON list of `count` numbers, as float32."""
    return _finite(_checked("list", np.asarray(_json(body), np.float32), np.float32, (count,)), "list")


def read_sparse(body: bytes, count: int) -> SparseRows:
    """Sparse rows from an npz file."""
    arrays = _npz(body, ("indices", "values", "offsets", "shape"))
    _check_offsets(arrays["offsets"], count, len(arrays["values"]))
    values = _finite(arrays["values"].astype(np.float32, copy=False), "values")
    if len(arrays["indices"]) != len(values) or arrays["shape"].shape != (2,):
        raise ProtocolError("the answer's sparse rows do not fit together")
    indices, offsets = arrays["indices"].astype(np.int32, copy=False), arrays["offsets"].astype(np.int64, copy=False)
    return SparseRows(indices, values, offsets, int(arrays["shape"][1]))


def read_tokens_rows(body: bytes, count: int) -> TokenRows:
    """Vectors of tokens from an npz file."""
    arrays = _npz(body, ("vectors", "offsets"))
    _check_offsets(arrays["offsets"], count, len(arrays["vectors"]))
    return TokenRows(_finite(arrays["vectors"].astype(np.float32, copy=False), "vectors"), arrays["offsets"])


def read_tokens(body: bytes, count: int) -> list[list[Token]]:
    """The tokens of `count` texts."""
    try:
        found = [[_token(one) for one in row] for row in _json(body)]
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"the answer is no list of tokens: {excerpt(body)}") from error
    if len(found) != count:
        raise ProtocolError(f"the answer has tokens of {len(found)} texts, not of {count}")
    return found


def join_sparse(parts: Sequence[SparseRows]) -> SparseRows:
    """Several answers as one."""
    if len(parts) == 1:
        return parts[0]
    indices, values = (np.concatenate([getattr(part, name) for part in parts]) for name in ("indices", "values"))
    return SparseRows(indices, values, _joined([part.offsets for part in parts]), parts[0].dimensions)


def join_token_rows(parts: Sequence[TokenRows]) -> TokenRows:
    """Several answers as one."""
    if len(parts) == 1:
        return parts[0]
    return TokenRows(np.concatenate([part.vectors for part in parts]), _joined([part.offsets for part in parts]))


def _joined(offsets: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    lengths = np.concatenate([np.diff(one) for one in offsets])
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _token(given: Mapping[str, Any]) -> Token:
    return Token(int(given["id"]), str(given["text"]), bool(given["special"]), given["start"], given["stop"])


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise ProtocolError(f"the answer is no JSON: {excerpt(body)}") from error


def _npy(body: bytes) -> NDArray[Any]:
    try:
        found: NDArray[Any] = np.load(io.BytesIO(body), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ProtocolError("the answer is no npy array") from error
    return found


def _npz(body: bytes, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    try:
        with np.load(io.BytesIO(body), allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except (ValueError, EOFError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise ProtocolError(f"the answer is no npz file with {', '.join(names)}") from error


def _checked(name: str, found: NDArray[Any], dtype: type, shape: tuple[int, ...]) -> Rows:
    if found.dtype != dtype or found.shape != shape:
        raise ProtocolError(f"the answer's {name} are {found.dtype} of shape {found.shape}, not {shape}")
    return found


def _finite(found: Rows, name: str) -> Rows:
    if not np.isfinite(found).all():
        raise ProtocolError(f"the answer's {name} have numbers that are not finite")
    return found


def _check_offsets(offsets: NDArray[Any], count: int, entries: int) -> None:
    ascending = all(one <= other for one, other in pairwise(offsets.tolist()))
    if offsets.shape != (count + 1,) or offsets[0] != 0 or offsets[-1] != entries or not ascending:
        raise ProtocolError(f"the answer's offsets do not cut {entries} entries into {count} rows")
