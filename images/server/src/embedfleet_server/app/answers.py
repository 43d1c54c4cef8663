"""From vectors to bytes: OpenAI's JSON with floats or base64, or the array itself as an .npy file."""

import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import numpy as np
import orjson

from embedfleet_server.app.dimensions import shrink
from embedfleet_server.app.errors import item_errors
from embedfleet_server.app.outcome import Outcome
from embedfleet_server.engine.protocols import Rows

NPY = "application/x-npy"
Format = Literal["float", "base64", "npy"]
_LARGE: Mapping[Format, int] = {"float": 64 * 1024, "base64": 1024 * 1024, "npy": 4 * 1024 * 1024}
"""Bytes of vectors whose encoding takes the better part of a millisecond (measured); more leaves the event loop."""
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
    return len(outcome.rows) * dimensions * 4 > _LARGE[kind]


def encode(outcome: Outcome, dimensions: int, kind: Format) -> Encoded:
    """The answer in one of the formats, vectors cut to `dimensions`."""
    rows = shrink(outcome.rows, dimensions, normalized=outcome.info.normalized)
    headers = _headers(outcome)
    if kind != "npy":
        return Encoded(_json(outcome, rows, kind), "application/json", headers)
    if outcome.errors:
        headers |= _errors_headers(outcome)
    return Encoded(npy(rows), NPY, headers)


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
