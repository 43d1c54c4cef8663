"""From the bytes of a body to a JSON object: strict, and bounded before the parse."""

import json
from typing import Any

import numpy as np

from embedfleet_server.app.fields import kind
from embedfleet_server.engine.errors import InvalidRequest, TooLarge

VALUES = 1_000_000
"""Most JSON values of a body. Parsing holds the interpreter: so many numbers take it some 60 ms (measured)."""
LARGE = 256 * 1024
"""Bytes of a body that is parsed in a thread of its own: parsing so many takes about a quarter of a millisecond."""
_DIGITS = 100  # more than a number of 64 bits, or a float written out, needs
_PIECE = 1 << 20  # bytes; a few milliseconds


def decode(body: bytes, *, values: int = VALUES) -> dict[str, Any]:
    """Strict JSON: one object, no duplicate keys, no NaN or Infinity, nothing deep; raises `InvalidRequest`.

    `TooLarge` when it would hold more than `values` values, told without parsing it.
    """
    _check_values(body, values)
    try:
        document = _decoder(len(body)).decode(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not UTF-8: byte {error.start}") from error
    except RecursionError as error:
        raise InvalidRequest("the body is nested too deeply; input is at most a list of lists") from error
    except ValueError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidRequest(f"the body must be a JSON object, not {kind(document)}")
    return document


def _decoder(size: int) -> json.JSONDecoder:
    return _LARGE_DECODER if size > LARGE else _DECODER


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
        raise InvalidRequest(f"the key {_repeated(pairs)[:60]!r} stands more than once")
    return found


def _repeated(pairs: list[tuple[str, Any]]) -> str:
    """The first key that was there before."""
    seen = set[str]()
    for key, _ in pairs:
        if key in seen:
            return key
        seen.add(key)
    raise AssertionError("This is a bug: no key stands twice")


def _refuse_constant(name: str) -> Any:
    raise InvalidRequest(f"the body is not valid JSON: {name} is no JSON number")


def _integer(digits: str) -> int:
    """Not longer than any number of the contract; the time for one grows with the square of its length."""
    if len(digits) > _DIGITS:
        raise InvalidRequest(f"the body holds a number of {len(digits)} digits; at most {_DIGITS} are taken")
    return int(digits)


def _number(digits: str) -> float:
    return float(digits)


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)
_LARGE_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_int=_integer, parse_float=_number
)
"""Numbers go through functions of Python's, between which other threads run: slower, and holds nobody up."""
