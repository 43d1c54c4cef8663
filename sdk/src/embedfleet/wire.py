"""The wire without I/O: bodies of requests, answers into rows, error answers into errors."""

import io
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from embedfleet.answers import input_errors
from embedfleet.errors import (
    BadInput,
    EmbedfleetError,
    InputError,
    ModelNotFound,
    ProtocolError,
    Refused,
    RequestRejected,
    ServerFailed,
    ServiceUnavailable,
)
from embedfleet.retry import Kind, classify

Rows = NDArray[np.float32]
"""Vectors as rows, shape (n, d)."""

Vectors = NDArray[np.float32]
"""What a call gives: (d,) for a str, (n, d) for an iterable; float32, C-contiguous."""

InputType = Literal["query", "document"]

NPY = "application/x-npy"
JSON = "application/json"
NDJSON = "application/x-ndjson"

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 4096
_SHOWN_CHARACTERS = 200
_SURROGATE = "holds a lone surrogate, which is no character; decode the source with errors='replace'"


class ModelCard(BaseModel):
    """One model of a service, as its `/v1/models` tells; None where the model is not loaded yet."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())

    name: str
    service: str
    state: str
    """Pending, Loading, Ready or Failed."""
    max_inputs: int
    """Most texts in one request."""
    item_timeout_seconds: float | None = None
    """Within so long the server answers any request, with an error if need be; None where it does not say."""
    default: bool = False
    task: str | None = None
    dimensions: int | None = None
    max_tokens: int | None = None
    fingerprint: str | None = None
    """Same fingerprint: comparable vectors."""
    precision: str | None = None
    device: str | None = None
    revision: str | None = None
    prompts: tuple[str, ...] = ()
    matryoshka: tuple[int, ...] = ()
    padded: bool | None = None
    cause: str | None = None
    """Why the model is not Ready."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a call asks of every one of its requests."""

    model: str | None = None
    input_type: InputType | None = None
    dimensions: int | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """An error answer."""

    status: int
    message: str
    code: str | None = None
    accepted: bool | None = None
    retry_after: float | None = None
    errors: tuple[InputError, ...] = ()
    by: str | None = None
    """Who answered in the server's stead: `the API server`."""

    @property
    def kind(self) -> Kind:
        """What it means for another try."""
        return classify(self.status, self.code, self.accepted)


def encode(body: Mapping[str, Any]) -> bytes:
    """The JSON of a request; `BadInput` for text that no UTF-8 can hold."""
    try:
        return _ENCODER.encode(body).encode()
    except UnicodeEncodeError as error:
        raise BadInput("a text " + _SURROGATE) from error


def request_body(texts: Sequence[str], options: Options, start: int = 0) -> bytes:
    """The JSON body that asks for vectors of `texts`; `BadInput` for a text that no UTF-8 can hold.

    `start` is the place of the first text in the call.
    """
    wanted = {"model": options.model, "input_type": options.input_type, "dimensions": options.dimensions}
    body = {"input": list(texts), **{key: value for key, value in wanted.items() if value is not None}}
    try:
        return _ENCODER.encode(body).encode()
    except UnicodeEncodeError as error:
        raise BadInput.of(_surrogates(texts, start)) from error


def _surrogates(texts: Sequence[str], start: int) -> list[InputError]:
    return [InputError(i, "invalid_text", _SURROGATE) for i, text in enumerate(texts, start) if not _encodable(text)]


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class RowsReader:
    """Reads an npy answer of `count` rows as it arrives, each byte straight to its place in the result.

    `place(d)` is asked once for the (count, d) float32 array to fill.
    """

    def __init__(self, count: int, place: Callable[[int], Rows]) -> None:
        self._count = count
        self._place = place
        self._head = bytearray()
        self._rows: Rows | None = None
        self._target = memoryview(bytearray())
        self._filled = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body."""
        if self._rows is None:
            self._head += data
            data = self._read_header()
        end = self._filled + len(data)
        if end > len(self._target):
            raise ProtocolError(f"the answer is longer than its {self._count} rows")
        self._target[self._filled : end] = data
        self._filled = end

    def finish(self, aside: Collection[int] = (), unnamed: int = 0) -> list[int]:
        """The rows without a vector: those set `aside`, and up to `unnamed` others of which nothing is said.

        `ProtocolError` unless all rows are there and each but these is finite.
        """
        if self._rows is None or self._filled != len(self._target):
            raise ProtocolError(f"the answer ends in the middle of its {self._count} rows")
        self._rows[list(aside)] = np.nan
        if not aside and np.isfinite(self._rows).all():
            return []
        bad = np.flatnonzero(~np.isfinite(self._rows).all(axis=1)).tolist()
        unsaid = sorted(set(bad) - set(aside))
        if len(unsaid) > unnamed:
            raise ProtocolError(f"the answer has numbers that are not finite in row {unsaid[0]} of {self._count}")
        return bad

    def _read_header(self) -> bytes:
        start = npy_header_length(self._head)
        if start is None:
            return b""
        dimensions = _checked_header(bytes(self._head[:start]), self._count)
        rows = self._place(dimensions)
        rest = bytes(self._head[start:])
        self._rows, self._target, self._head = rows, rows.data.cast("B"), bytearray()
        return rest


def npy_header_length(head: bytes | bytearray) -> int | None:
    """Where the data of an npy file begins; None while `head` is too short to tell or to hold it all."""
    if not _MAGIC.startswith(bytes(head[:6])):
        raise ProtocolError(f"the answer is no npy array; it begins with {bytes(head[:20])!r}")
    if len(head) < 12:
        return None
    size = 2 if head[6] == 1 else 4
    length = 8 + size + int.from_bytes(head[8 : 8 + size], "little")
    if length > _LONGEST_HEADER:
        raise ProtocolError("the answer's npy header is too long")
    return length if len(head) >= length else None


def _checked_header(head: bytes, count: int) -> int:
    shape, fortran, dtype = _header(head)
    if dtype != np.dtype("<f4") or fortran or len(shape) != 2 or shape[1] < 1:
        raise ProtocolError(f"the answer has {dtype} of shape {shape}, not float32 rows in C order")
    if shape[0] != count:
        raise ProtocolError(f"the answer has {shape[0]} rows for {count} texts")
    return int(shape[1])


@lru_cache(maxsize=64)  # most answers begin alike, and NumPy compiles each header as Python
def _header(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    file = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except ValueError as error:
        raise ProtocolError("the answer's npy header cannot be read") from error
    return shape, fortran, dtype


def read_failure(status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """The error answer, whoever gave it; one that is not in the wire's shape has no code."""
    retry_after = _retry_after(headers)
    if (told := _of_kubernetes(body)) is not None:
        return Failure(status, f"HTTP {status}: {told}", retry_after=retry_after, by="the API server")
    try:
        told = json.loads(body)
        # text-embeddings-inference's routes have the message itself under `error`, and the rest beside it.
        error = told["error"] if isinstance(told["error"], dict) else {**told, "message": told["error"]}
        code, accepted, errors = error.get("code"), error.get("accepted"), input_errors(error.get("errors"))
        return Failure(status, str(error["message"]), code, accepted, retry_after, errors)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Failure(status, f"HTTP {status}: {excerpt(body)}", retry_after=retry_after)


def _of_kubernetes(body: bytes) -> str | None:
    """The words of a Kubernetes `Status`, by which the API server answers where its proxy gets no further."""
    if b'"Status"' not in body[:_LONGEST_HEADER]:
        return None
    try:
        tree = json.loads(body)
        return str(tree["message"]) if tree.get("kind") == "Status" else None
    except (ValueError, KeyError, AttributeError):
        return None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    exact = headers.get("X-Embedfleet-Retry-After-Milliseconds", "")
    if exact.isascii() and exact.isdigit():
        return int(exact) / 1000
    whole = headers.get("Retry-After", "")
    return float(whole) if whole.isascii() and whole.isdigit() else None


def excerpt(body: bytes) -> str:
    """The beginning of an answer, as one line."""
    text = " ".join(body[: 4 * _SHOWN_CHARACTERS].decode(errors="replace").split())
    return repr(text[:_SHOWN_CHARACTERS]) if text else "an empty body"


def error_of(failure: Failure, url: str, start: int = 0) -> EmbedfleetError:
    """The SDK's error for an answer of the server at `url`; `start` is the place of the request's first text."""
    if failure.errors and failure.status < 500:
        return BadInput.of([InputError(start + e.index, e.code, e.message) for e in failure.errors])
    return _refusal(failure, url) or _rejection(failure, url)


def _refusal(failure: Failure, url: str) -> EmbedfleetError | None:
    if failure.kind is Kind.FAILED and failure.code:
        return ServerFailed(failure.message, failure.code)
    if failure.status in (429, 503) and failure.code:
        return Refused(failure.message, failure.code, failure.retry_after)
    if failure.kind is not Kind.FINAL:
        return ServiceUnavailable(f"{url} answers {failure.message}")
    return None


def _rejection(failure: Failure, url: str) -> EmbedfleetError:
    if failure.code == "model_not_found":
        return ModelNotFound(failure.message)
    if failure.code:
        return RequestRejected(failure.message, failure.code, failure.status)
    if failure.by is not None:
        return RequestRejected(f"{url}: {failure.by} answers {failure.message}", "forbidden", failure.status)
    if failure.status in (401, 403):
        return RequestRejected(f"{url} refuses this api_key, or asks for one", "unauthorized", failure.status)
    return ProtocolError(f"{url} does not answer like an embedfleet server: {failure.message}")


def read_models(body: bytes, url: str) -> tuple[ModelCard, ...]:
    """The models of a service; `ProtocolError` when the answer is not embedfleet's."""
    try:
        return tuple(_card(entry) for entry in json.loads(body)["data"])
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        text = f"{url} does not answer like an embedfleet server: /v1/models gave {excerpt(body)}"
        raise ProtocolError(text) from error


def _card(entry: Any) -> ModelCard:
    return ModelCard.model_validate({"name": entry["id"], **entry["embedfleet"]})


def card_of(cards: Sequence[ModelCard], model: str | None) -> ModelCard | None:
    """The card of the model that answers a request for `model`; None where that cannot be told."""
    wanted = (card for card in cards if (card.name == model if model is not None else card.default))
    return next(wanted, cards[0] if len(cards) == 1 and model is None else None)
