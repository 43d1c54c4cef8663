"""What the headers of an answer say beside its rows; read tolerantly, since a proxy may drop any of them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from embedfleet.errors import InputError


@dataclass(frozen=True, slots=True)
class Answered:
    """The model's cost and identity, and the inputs set aside, counted within the request."""

    queue_seconds: float = 0.0
    fingerprint: str | None = None
    compute_seconds: float = 0.0
    tokens: int = 0
    model: str | None = None
    precision: str | None = None
    errors: tuple[InputError, ...] = ()
    unnamed: int = 0
    """Bad inputs that the header had no room for."""
    truncated: tuple[int, ...] = ()
    pod: str | None = None
    """The pod that answered."""


def read(headers: Mapping[str, str]) -> Answered:
    """What `headers` say."""
    return Answered(
        _number(headers, "X-Embedfleet-Queue-Milliseconds") / 1000,
        headers.get("X-Embedfleet-Fingerprint"),
        _number(headers, "X-Embedfleet-Compute-Milliseconds") / 1000,
        int(_number(headers, "X-Embedfleet-Tokens")),
        headers.get("X-Embedfleet-Model"),
        headers.get("X-Embedfleet-Precision"),
        _errors(headers.get("X-Embedfleet-Errors")),
        int(_number(headers, "X-Embedfleet-Errors-Omitted")),
        _places(headers.get("X-Embedfleet-Truncated", "")),
        headers.get("X-Embedfleet-Pod"),
    )


def input_errors(entries: object) -> tuple[InputError, ...]:
    """The entries of an `errors` array; `ValueError`, `KeyError` or `TypeError` when it is none."""
    listed = entries if isinstance(entries, list) else []
    return tuple(InputError(int(e["index"]), str(e["code"]), str(e["message"])) for e in listed)


def _errors(said: str | None) -> tuple[InputError, ...]:
    try:
        return input_errors(json.loads(said)) if said else ()
    except (ValueError, KeyError, TypeError):
        return ()


def _places(said: str) -> tuple[int, ...]:
    return tuple(int(place) for place in said.split(",") if place.isascii() and place.isdigit())


def _number(headers: Mapping[str, str], name: str) -> float:
    try:
        found = float(headers.get(name, 0))
    except ValueError:
        return 0.0
    return found if 0 <= found < float("inf") else 0.0
