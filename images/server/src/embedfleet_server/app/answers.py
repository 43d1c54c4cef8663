"""From vectors to bytes: OpenAI's JSON with floats or base64, bare JSON arrays, or the array itself as an .npy file."""

import binascii
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import numpy as np
import orjson

from embedfleet_server.app.dimensions import shrink, unit
from embedfleet_server.app.errors import item_errors
from embedfleet_server.app.outcome import Outcome
from embedfleet_server.engine.protocols import Rows

NPY = "application/x-npy"
JSON = "application/json"
Format = Literal["float", "base64", "npy", "arrays"]
_ROWS_AT_ONCE = 64  # orjson holds the GIL; between pieces of this size the event loop gets its turn
_HEADER_BYTES = 6000  # clients take header fields up to 8 KiB


@dataclass(frozen=True, slots=True)
class Encoded:
    """The body of an answer and what its headers say."""

    body: bytes
    content_type: str
    headers: dict[str, str]


def wanted(accept: str | None, encoding: Literal["float", "base64"]) -> Format:
    """The format of the answer: an `Accept` that names the .npy type wins over `encoding_format`."""
    ranges = (part.partition(";") for part in (accept or "").split(","))
    named = (kind.strip().lower() == NPY and not _is_refused(rest) for kind, _, rest in ranges)
    return "npy" if any(named) else encoding


def is_large(outcome: Outcome, dimensions: int, kind: Format) -> bool:
    """Whether encoding takes long enough to be done off the event loop."""
    return len(outcome.rows) * dimensions * 4 > ENCODERS[kind].large


def encode(outcome: Outcome, dimensions: int, kind: Format, *, normalize: bool | None = None) -> Encoded:
    """The answer in one of the formats, vectors cut to `dimensions`; `normalize` gives length 1 to any model's."""
    rows = finished(outcome, dimensions, normalize=normalize)
    encoder = ENCODERS[kind]
    body, more = encoder.make(outcome, rows)
    return Encoded(body, encoder.content_type, _headers(outcome) | more)


def finished(outcome: Outcome, dimensions: int, *, normalize: bool | None) -> Rows:
    """The rows as they are answered, (n, dimensions) float32."""
    info = outcome.info
    rows = shrink(outcome.rows, dimensions, normalized=info.normalized)
    return unit(rows) if normalize and not info.normalized else rows


def npy(rows: Rows) -> bytes:
    """An .npy file, version 1.0: little-endian float32, C order, shape (n, d)."""
    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }" % rows.shape
    padding = -(10 + len(head) + 1) % 64  # the array starts at a multiple of 64 bytes
    size = (len(head) + padding + 1).to_bytes(2, "little")
    return b"".join((b"\x93NUMPY\x01\x00", size, head, b" " * padding, b"\n", _little(rows).tobytes()))


def _is_refused(parameters: str) -> bool:
    """Whether an entry of `Accept` has the weight 0, which means: not this one."""
    pairs = (part.partition("=") for part in parameters.split(";"))
    return any(key.strip().lower() == "q" and value.strip().strip("0") in ("", ".") for key, _, value in pairs)


def _headers(outcome: Outcome) -> dict[str, str]:
    info = outcome.info
    return {
        "X-Embedfleet-Model": info.name,
        "X-Embedfleet-Fingerprint": info.fingerprint,
        "X-Embedfleet-Precision": info.precision,
        "X-Embedfleet-Tokens": str(outcome.tokens),
        "X-Embedfleet-Queue-Milliseconds": _milliseconds(outcome.queue_seconds),
        "X-Embedfleet-Compute-Milliseconds": _milliseconds(outcome.compute_seconds),
    }


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.3f}"


def _npy_answer(outcome: Outcome, rows: Rows) -> tuple[bytes, dict[str, str]]:
    return npy(rows), _errors_headers(outcome) if outcome.errors else {}


def _arrays_answer(outcome: Outcome, rows: Rows) -> tuple[bytes, dict[str, str]]:
    """text-embeddings-inference's shape: a list of vectors and nothing beside it."""
    starts = range(0, len(rows), _ROWS_AT_ONCE)
    pieces = (orjson.dumps(rows[i : i + _ROWS_AT_ONCE], option=orjson.OPT_SERIALIZE_NUMPY)[1:-1] for i in starts)
    return b"".join((b"[", b",".join(pieces), b"]")), {}


def _openai_answer(kind: Literal["float", "base64"]) -> "Make":
    return lambda outcome, rows: (_json(outcome, rows, kind), {})


def _json(outcome: Outcome, rows: Rows, kind: Literal["float", "base64"]) -> bytes:
    """The OpenAI shape; the rows go in as pieces made one after the other, the rest is one small object."""
    rest: dict[str, Any] = {
        "model": outcome.info.name,
        "usage": {"prompt_tokens": outcome.tokens, "total_tokens": outcome.tokens},
    }
    if outcome.errors:
        rest["errors"] = item_errors(list(outcome.errors.values()))
    data = b",".join(_pieces(outcome, rows, kind))
    return b"".join((b'{"object":"list","data":[', data, b"],", orjson.dumps(rest)[1:]))


def _pieces(outcome: Outcome, rows: Rows, kind: Literal["float", "base64"]) -> Iterator[bytes]:
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        indices = range(start, min(start + _ROWS_AT_ONCE, len(rows)))
        entries = [{"object": "embedding", "index": i, "embedding": _vector(outcome, rows, i, kind)} for i in indices]
        yield orjson.dumps(entries, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]


def _vector(outcome: Outcome, rows: Rows, index: int, kind: Literal["float", "base64"]) -> Any:
    """JSON has no NaN, so a bad row of floats is null; in base64 it is a row of NaN."""
    if kind == "base64":
        return binascii.b2a_base64(_little(rows[index]).data, newline=False).decode("ascii")
    return None if index in outcome.errors else rows[index]


def _little(rows: Rows) -> Rows:
    return np.ascontiguousarray(rows, dtype="<f4")


def _errors_headers(outcome: Outcome) -> dict[str, str]:
    """The `errors` array as ASCII JSON: as many entries, from the first, as a header field may hold.

    `X-Embedfleet-Errors-Omitted` counts those left out; their rows are NaN like the others'.
    """
    entries = [_ascii(entry) for entry in item_errors(list(outcome.errors.values()))]
    ends = accumulate(len(entry) + 1 for entry in entries)
    fitting = sum(end <= _HEADER_BYTES for end in ends)
    headers = {"X-Embedfleet-Errors": f"[{','.join(entries[:fitting])}]"}
    if fitting < len(entries):
        headers["X-Embedfleet-Errors-Omitted"] = str(len(entries) - fitting)
    return headers


def _ascii(value: object) -> str:
    """JSON in printable ASCII alone, as a header needs it; orjson writes UTF-8."""
    return json.dumps(value, separators=(",", ":"))


Make = Callable[[Outcome, Rows], tuple[bytes, dict[str, str]]]


@dataclass(frozen=True, slots=True)
class Encoder:
    """One format. `large` bytes of vectors take the better part of a millisecond (measured); more leaves the loop."""

    content_type: str
    large: int
    make: Make
    """The body, and headers beside those of every answer."""


ENCODERS: Mapping[Format, Encoder] = {
    "float": Encoder(JSON, 64 * 1024, _openai_answer("float")),
    "base64": Encoder(JSON, 1024 * 1024, _openai_answer("base64")),
    "npy": Encoder(NPY, 4 * 1024 * 1024, _npy_answer),
    "arrays": Encoder(JSON, 64 * 1024, _arrays_answer),
}
"""Every output there is; another one is one more row."""
