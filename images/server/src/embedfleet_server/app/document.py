"""From the bytes of a body to a JSON object: strict, and bounded before the parse."""

import json
from typing import Any

import numpy as np

from embedfleet_server.app.fields import kind
from embedfleet_server.engine.errors import InvalidRequest, TooLarge

VALUES = 1_000_000
"""Most JSON values of a body. Parsing holds the interpreter: so many numbers take it some 60 ms (measured)."""
_PIECE = 1 << 20  # bytes; a few milliseconds


def decode(body: bytes, *, values: int = VALUES) -> dict[str, Any]:
    """Strict JSON: one object, no duplicate keys, no NaN or Infinity, nothing deep; raises `InvalidRequest`.

    `TooLarge` when it would hold more than `values` values, told without parsing it.
    """
    _check_values(body, values)
    try:
        document = _DECODER.decode(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not UTF-8: byte {error.start}") from error
    except RecursionError as error:
        raise InvalidRequest("the body is nested too deeply; input is at most a list of lists") from error
    except ValueError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidRequest(f"the body must be a JSON object, not {kind(document)}")
    return document


def _check_values(body: bytes, most: int) -> None:
    """Counts commas, and only where there are too many tells those of texts apart from those between values."""
    if body.count(b",") >= most and values_of(body, most) >= most:
        raise TooLarge(f"the body holds more than {most} values; send fewer inputs per request")


def values_of(body: bytes, enough: int, piece: int = _PIECE) -> int:
    """Commas outside of strings, counted until there are `enough`; in pieces, between which other threads run."""
    count = start = quotes = 0
    while start < len(body) and count < enough:
        part = _piece(body, start, piece)
        plain = part.replace(b"\\\\", b"").replace(b'\\"', b"")
        codes = np.frombuffer(plain, np.uint8)
        inside = (np.cumsum(codes == ord('"'), dtype=np.uint8) + np.uint8(quotes)) & 1
        count += int(np.count_nonzero((codes == ord(",")) & (inside == 0)))
        quotes = (quotes + plain.count(b'"')) & 1
        start += len(part)
    return count


def _piece(body: bytes, start: int, size: int) -> bytes:
    """From `start`, which parts no backslash from what it escapes, to where the end does not either."""
    found = body[start : start + size]
    backslashes = len(found) - len(found.rstrip(b"\\"))
    return body[start : start + size + 1] if backslashes % 2 else found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise InvalidRequest(f"the key {next(k for k in keys if keys.count(k) > 1)!r} stands more than once")
    return found


def _refuse_constant(name: str) -> Any:
    raise InvalidRequest(f"the body is not valid JSON: {name} is no JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)
