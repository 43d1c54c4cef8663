"""From rows to bytes: JSON of OpenAI's shape or text-embeddings-inference's, or the arrays themselves as files.

    task         JSON                                          file
    Dense        `float`, `base64` (OpenAI), `arrays` (TEI)    `npy`: one array (n, d)
    Sparse       `sparse`: lists of {index, value}             `npz`: indices, values, offsets, shape
    MultiVector  `ragged`: lists of vectors                    `npz`: vectors, offsets

How scores are written stands in `ranking`.
"""

import binascii
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray

from embedfleet_server.app.dimensions import shrink, unit
from embedfleet_server.app.errors import item_errors
from embedfleet_server.app.outcome import Outcome
from embedfleet_server.app.requests import NEEDS_RANGES, Dtype
from embedfleet_server.engine.errors import InvalidRequest
from embedfleet_server.engine.protocols import Rows
from embedfleet_server.engine.quantizing import quantized
from embedfleet_server.engine.rows import SparseRows, weight

NPY, NPZ = "application/x-npy", "application/x-npz"
JSON = "application/json"
POD = "X-Embedfleet-Pod"
"""Header of the answers of a pod's server: the pod's name."""
Format = Literal["float", "base64", "npy", "arrays", "sparse", "ragged", "npz"]
Array = NDArray[Any]
"""Vectors as rows, of any of the types that can be asked for."""
_ROWS_AT_ONCE = 64  # orjson holds the GIL; between pieces of this size the event loop gets its turn
_HEADER_BYTES = 6000  # clients take header fields up to 8 KiB


@dataclass(frozen=True, slots=True)
class Encoded:
    """The body of an answer and what its headers say."""

    body: bytes
    content_type: str
    headers: dict[str, str]


def wanted(accept: str | None, otherwise: Format, binary: Format = "npy") -> Format:
    """The format of the answer: an `Accept` that names the type of `binary` wins over what the body asks for."""
    return binary if accepts(accept, ENCODERS[binary].content_type) else otherwise


def accepts(accept: str | None, content_type: str) -> bool:
    """Whether an `Accept` names this very type."""
    ranges = (part.partition(";") for part in (accept or "").split(","))
    return any(kind.strip().lower() == content_type and not _is_refused(rest) for kind, _, rest in ranges)


def is_large(outcome: Outcome, dimensions: int, kind: Format) -> bool:
    """Whether encoding takes long enough to be done off the event loop."""
    dense = isinstance(outcome.rows, np.ndarray)
    return (len(outcome.rows) * dimensions * 4 if dense else weight(outcome.rows)) > ENCODERS[kind].large


def encode(
    outcome: Outcome, dimensions: int, kind: Format, *, normalize: bool | None = None, dtype: Dtype = "float32"
) -> Encoded:
    """The answer in one of the formats.

    Dense vectors are cut to `dimensions`, given length 1 by any model where `normalize`, and then the type `dtype`.
    """
    rows = outcome.rows
    if isinstance(rows, np.ndarray):
        rows = _typed(finished(outcome, dimensions, normalize=normalize), dtype)
    encoder = ENCODERS[kind]
    body, more = encoder.make(outcome, rows)
    typed = {} if dtype == "float32" else {"X-Embedfleet-Dtype": dtype}
    return Encoded(body, encoder.content_type, headers(outcome) | typed | more)


def finished(outcome: Outcome, dimensions: int, *, normalize: bool | None) -> Rows:
    """The vectors of a Dense model as they are answered, (n, dimensions) float32."""
    info = outcome.info
    rows = shrink(outcome.rows, dimensions, normalized=info.normalized)
    return unit(rows) if normalize and not info.normalized else rows


def npy(rows: Array) -> bytes:
    """An .npy file, version 1.0: little-endian, C order."""
    array = _little(rows)
    head = f"{{'descr': {array.dtype.str!r}, 'fortran_order': False, 'shape': {rows.shape}, }}".encode()
    padding = -(10 + len(head) + 1) % 64  # the array starts at a multiple of 64 bytes
    size = (len(head) + padding + 1).to_bytes(2, "little")
    return b"".join((b"\x93NUMPY\x01\x00", size, head, b" " * padding, b"\n", array.tobytes()))


def headers(outcome: Outcome) -> dict[str, str]:
    """What every answer's headers tell of model, cost and time."""
    info = outcome.info
    return {
        "X-Embedfleet-Model": info.name,
        "X-Embedfleet-Fingerprint": info.fingerprint,
        "X-Embedfleet-Precision": info.precision,
        "X-Embedfleet-Tokens": str(outcome.tokens),
        "X-Embedfleet-Queue-Milliseconds": _milliseconds(outcome.queue_seconds),
        "X-Embedfleet-Compute-Milliseconds": _milliseconds(outcome.compute_seconds),
        **_truncated_headers(outcome.truncated),
    }


def _truncated_headers(indexes: Sequence[int]) -> dict[str, str]:
    """The inputs that lost their end: how many, and as many of their places as a header field may hold."""
    if not indexes:
        return {}
    ends = accumulate(len(str(index)) + 1 for index in indexes)
    fitting = sum(end <= _HEADER_BYTES for end in ends)
    shown = ",".join(map(str, indexes[:fitting]))
    return {"X-Embedfleet-Truncated": shown, "X-Embedfleet-Truncated-Count": str(len(indexes))}


def errors_headers(outcome: Outcome) -> dict[str, str]:
    """The `errors` array as ASCII JSON, for bodies without a place for it: as many entries as a header field may hold.

    `X-Embedfleet-Errors-Omitted` counts those left out.
    """
    if not outcome.errors:
        return {}
    entries = [_ascii(entry) for entry in item_errors(list(outcome.errors.values()))]
    ends = accumulate(len(entry) + 1 for entry in entries)
    fitting = sum(end <= _HEADER_BYTES for end in ends)
    made = {"X-Embedfleet-Errors": f"[{','.join(entries[:fitting])}]"}
    if fitting < len(entries):
        made["X-Embedfleet-Errors-Omitted"] = str(len(entries) - fitting)
    return made


def _is_refused(parameters: str) -> bool:
    """Whether an entry of `Accept` has the weight 0, which means: not this one."""
    pairs = (part.partition("=") for part in parameters.split(";"))
    return any(key.strip().lower() == "q" and value.strip().strip("0") in ("", ".") for key, _, value in pairs)


def _typed(rows: Rows, dtype: Dtype) -> Array:
    if dtype == "float32":
        return rows
    try:
        return quantized(rows, dtype)
    except ValueError as error:
        if dtype in NEEDS_RANGES:
            raise InvalidRequest(f"dtype is {dtype}: {error}", "dtype") from error
        raise


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.3f}"


def _npy_answer(outcome: Outcome, rows: Array) -> tuple[bytes, dict[str, str]]:
    return npy(rows), errors_headers(outcome)


def _arrays_answer(outcome: Outcome, rows: Array) -> tuple[bytes, dict[str, str]]:
    """text-embeddings-inference's shape: a list of vectors and nothing beside it; null for a bad input set aside."""
    if outcome.errors:
        return _listed(outcome, [orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) for row in rows])
    starts = range(0, len(rows), _ROWS_AT_ONCE)
    pieces = (orjson.dumps(rows[i : i + _ROWS_AT_ONCE], option=orjson.OPT_SERIALIZE_NUMPY)[1:-1] for i in starts)
    return b"".join((b"[", b",".join(pieces), b"]")), {}


def _listed(outcome: Outcome, rows: list[bytes]) -> tuple[bytes, dict[str, str]]:
    shown = (b"null" if index in outcome.errors else row for index, row in enumerate(rows))
    return b"".join((b"[", b",".join(shown), b"]")), errors_headers(outcome)


def _sparse_answer(outcome: Outcome, rows: Any) -> tuple[bytes, dict[str, str]]:
    """A list for each input of its active dimensions, ascending, and their values."""
    return _listed(outcome, [_entries(*rows.row(index)) for index in range(len(rows))])


def _entries(indices: Array, values: Rows) -> bytes:
    """Numbers are written by whole arrays and then paired: some 10 times as fast as an object for each."""
    if not len(indices):
        return b"[]"
    texts = (orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",") for array in (indices, values))
    return b"[%s]" % b",".join(b'{"index":%s,"value":%s}' % pair for pair in zip(*texts, strict=True))


def _ragged_answer(outcome: Outcome, rows: Any) -> tuple[bytes, dict[str, str]]:
    """A list for each input of its tokens' vectors."""
    made = (orjson.dumps(rows.row(index), option=orjson.OPT_SERIALIZE_NUMPY) for index in range(len(rows)))
    return _listed(outcome, list(made))


def _npz_answer(outcome: Outcome, rows: Any) -> tuple[bytes, dict[str, str]]:
    """An .npz file, not compressed; row i has the entries from `offsets[i]` to before `offsets[i + 1]`."""
    arrays: dict[str, Array]
    if isinstance(rows, SparseRows):
        shape = np.array([len(rows), rows.dimensions])
        arrays = {"indices": rows.indices, "values": rows.values, "offsets": rows.offsets, "shape": shape}
    else:
        arrays = {"vectors": rows.vectors, "offsets": rows.offsets}
    file = io.BytesIO()
    np.savez(file, **{name: _little(array) for name, array in arrays.items()})  # type: ignore[arg-type]  # numpy's stub takes the names for its own option
    return file.getvalue(), errors_headers(outcome)


def _openai_answer(kind: Literal["float", "base64"]) -> "Make":
    return lambda outcome, rows: (_json(outcome, rows, kind), {})


def _json(outcome: Outcome, rows: Array, kind: Literal["float", "base64"]) -> bytes:
    """The OpenAI shape; the rows go in as pieces made one after the other, the rest is one small object."""
    rest: dict[str, Any] = {
        "model": outcome.info.name,
        "usage": {"prompt_tokens": outcome.tokens, "total_tokens": outcome.tokens},
    }
    if outcome.errors:
        rest["errors"] = item_errors(list(outcome.errors.values()))
    data = b",".join(_pieces(outcome, rows, kind))
    return b"".join((b'{"object":"list","data":[', data, b"],", orjson.dumps(rest)[1:]))


def _pieces(outcome: Outcome, rows: Array, kind: Literal["float", "base64"]) -> Iterator[bytes]:
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        indices = range(start, min(start + _ROWS_AT_ONCE, len(rows)))
        entries = [{"object": "embedding", "index": i, "embedding": _vector(outcome, rows, i, kind)} for i in indices]
        yield orjson.dumps(entries, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]


def _vector(outcome: Outcome, rows: Array, index: int, kind: Literal["float", "base64"]) -> Any:
    """JSON has no NaN, so a bad row of numbers is null; in base64 it is a row of NaN, or of 0 in whole numbers."""
    if kind == "base64":
        return binascii.b2a_base64(_little(rows[index]).data, newline=False).decode("ascii")
    return None if index in outcome.errors else rows[index]


def _little(rows: Array) -> Array:
    return np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder("<"))


def _ascii(value: object) -> str:
    """JSON in printable ASCII alone, as a header needs it; orjson writes UTF-8."""
    return json.dumps(value, separators=(",", ":"))


Make = Callable[[Outcome, Any], tuple[bytes, dict[str, str]]]


@dataclass(frozen=True, slots=True)
class Encoder:
    """One format. `large` bytes of numbers take the better part of a millisecond (measured); more leaves the loop."""

    content_type: str
    large: int
    make: Make
    """The body, and headers beside those of every answer."""


ENCODERS: Mapping[Format, Encoder] = {
    "float": Encoder(JSON, 64 * 1024, _openai_answer("float")),
    "base64": Encoder(JSON, 1024 * 1024, _openai_answer("base64")),
    "npy": Encoder(NPY, 4 * 1024 * 1024, _npy_answer),
    "arrays": Encoder(JSON, 64 * 1024, _arrays_answer),
    "sparse": Encoder(JSON, 16 * 1024, _sparse_answer),
    "ragged": Encoder(JSON, 64 * 1024, _ragged_answer),
    "npz": Encoder(NPZ, 256 * 1024, _npz_answer),
}
"""Every output there is; another one is one more row."""
