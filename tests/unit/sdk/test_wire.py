"""Bodies, answers and errors, without a socket."""

import io
import itertools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from embedfleet import errors
from embedfleet.errors import BadInput, InputError, ProtocolError
from embedfleet.wire import (
    Failure,
    Options,
    Rows,
    RowsReader,
    error_of,
    read_failure,
    read_models,
    request_body,
)

URL = "http://somewhere"


def npy(rows: NDArray[Any], version: tuple[int, int] | None = None) -> bytes:
    """The .npy file of `rows`."""
    file = io.BytesIO()
    np.lib.format.write_array(file, rows, version=version)
    return file.getvalue()


def read(data: bytes, count: int, cuts: list[int] | None = None) -> Rows:
    """What a reader makes of `data` that arrives in pieces."""
    placed: list[Rows] = []

    def place(dimensions: int) -> Rows:
        placed.append(np.empty((count, dimensions), np.float32))
        return placed[0]

    reader = RowsReader(count, place)
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts or [])})
    for start, end in itertools.pairwise(places):
        reader.feed(data[start:end])
    assert reader.finish() == []
    return placed[0]


def test_a_body_holds_what_was_asked_and_nothing_else() -> None:
    """Options that are not set are not sent, so that the server's own defaults hold."""
    assert json.loads(request_body(["ä", "b"], Options())) == {"input": ["ä", "b"]}
    full = json.loads(request_body(["a"], Options("code", "query", 64)))
    assert full == {"input": ["a"], "model": "code", "input_type": "query", "dimensions": 64}


def test_a_lone_surrogate_is_named_by_its_place_in_the_call() -> None:
    """Text that no UTF-8 can hold is refused before it is sent."""
    with pytest.raises(BadInput) as caught:
        request_body(["fine", "\ud800"], Options(), start=10)
    assert caught.value.indexes == [11]


@given(rows=st.integers(1, 20), dimensions=st.integers(1, 20), cuts=st.lists(st.integers(0, 2000)), v2=st.booleans())
def test_rows_are_the_same_however_they_arrive(rows: int, dimensions: int, cuts: list[int], v2: bool) -> None:
    """Every cut of the bytes gives the same rows, float32 and C-contiguous, for both versions of the header."""
    sent = np.arange(rows * dimensions, dtype=np.float32).reshape(rows, dimensions)
    got = read(npy(sent, (2, 0) if v2 else (1, 0)), rows, cuts)
    assert np.array_equal(got, sent)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous


def test_rows_go_straight_into_the_place_given() -> None:
    """The result is the caller's own array, not a copy of it."""
    whole = np.zeros((4, 2), np.float32)
    reader = RowsReader(2, lambda dimensions: whole[1:3])
    reader.feed(npy(np.ones((2, 2), np.float32)))
    assert reader.finish() == []
    assert whole.sum() == 4


def test_rows_that_are_set_aside_are_nan_and_no_others_may_be() -> None:
    """NaN is taken where the answer says why, or says that it left out so many; a broken server's is refused."""
    sent = np.ones((4, 2), np.float32)
    sent[[1, 3]] = np.nan
    for aside, unnamed, bad in (([1, 3], 0, [1, 3]), ([1], 1, [1, 3]), ([0, 1, 3], 0, [0, 1, 3])):
        rows = np.empty((4, 2), np.float32)
        reader = RowsReader(4, lambda dimensions: rows)  # noqa: B023  # used at once
        reader.feed(npy(sent))
        assert reader.finish(aside, unnamed) == bad
        assert np.isnan(rows[bad]).all()
    reader = RowsReader(4, lambda dimensions: np.empty((4, 2), np.float32))
    reader.feed(npy(sent))
    with pytest.raises(ProtocolError, match="not finite in row 3 of 4"):
        reader.finish([1])


def test_errors_of_every_dialect_are_read() -> None:
    """OpenAI's routes have an object under `error`, text-embeddings-inference's the message itself."""
    inside = {"code": "queue_full", "accepted": False, "errors": [{"index": 1, "code": "c", "message": "m"}]}
    for body in ({"error": {"message": "full", **inside}}, {"error": "full", **inside}):
        failure = read_failure(429, {}, json.dumps(body).encode())
        assert (failure.message, failure.code, failure.accepted) == ("full", "queue_full", False)
        assert failure.errors == (InputError(1, "c", "m"),)


_GOOD = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"<html>not found</html>", "no npy array"),
        (npy(_GOOD.astype(np.float64)), "not float32"),
        (npy(np.asfortranarray(_GOOD)), "not float32 rows in C order"),
        (npy(np.ones(6, np.float32)), "of shape \\(6,\\)"),
        (npy(np.ones((2, 0), np.float32)), "of shape \\(2, 0\\)"),
        (npy(np.ones((3, 3), np.float32)), "3 rows for 2 texts"),
        (npy(_GOOD)[:-1], "ends in the middle"),
        (npy(_GOOD)[:9], "ends in the middle"),
        (b"", "ends in the middle"),
        (npy(_GOOD) + b"x", "longer"),
        (npy(np.array([[1, 2, 3], [1, np.nan, 3]], np.float32)), "not finite in row 1"),
        (npy(np.array([[1, np.inf, 3], [1, 2, 3]], np.float32)), "not finite in row 0"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b" " * 70000, "too long"),
        (b"\x93NUMPY\x01\x00\x08\x00garbage\n" + bytes(24), "cannot be read"),
        (npy(np.array([["a"]], object)), "not float32"),
    ],
)
def test_a_broken_answer_is_never_taken_for_rows(data: bytes, says: str) -> None:
    """Wrong type, shape, order, length or numbers are a ProtocolError that says which; pickles are not read."""
    with pytest.raises(ProtocolError, match=says):
        read(data, 2)


@given(st.binary(max_size=300))
def test_any_bytes_give_an_error_of_ours(data: bytes) -> None:
    """No answer, however strange, raises anything but ProtocolError."""
    with pytest.raises(ProtocolError):
        read(data, 2)


def test_the_exact_delay_wins_over_the_whole_seconds() -> None:
    """Milliseconds are read where the server tells them."""
    headers = {"Retry-After": "1", "X-Embedfleet-Retry-After-Milliseconds": "40"}
    assert read_failure(429, headers, b"{}").retry_after == 0.04
    assert read_failure(429, {"Retry-After": "7"}, b"{}").retry_after == 7
    assert read_failure(429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, b"{}").retry_after is None


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_any_error_body_can_be_read(body: bytes) -> None:
    """An answer that is no error of the wire still becomes a failure with its status."""
    assert read_failure(502, {}, body).code is None


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (Failure(404, "m", "model_not_found"), errors.ModelNotFound),
        (Failure(400, "m", "invalid_request"), errors.RequestRejected),
        (Failure(429, "m", "queue_full", False, 1.0), errors.Refused),
        (Failure(503, "m", "model_failed", False, 1.0), errors.Refused),
        (Failure(500, "m", "internal", True), errors.ServerFailed),
        (Failure(500, "m", "internal", True, errors=(InputError(0, "not_finite", "m"),)), errors.ServerFailed),
        (Failure(502, "m"), errors.ServiceUnavailable),
        (Failure(401, "m"), errors.RequestRejected),
        (Failure(404, "m"), errors.ProtocolError),
        (Failure(302, "m"), errors.ProtocolError),
    ],
)
def test_each_failure_has_its_error(failure: Failure, error: type[Exception]) -> None:
    """Errors tell whose fault it is: the caller's, the server's, or that it is no embedfleet server at all."""
    assert type(error_of(failure, URL)) is error


def test_bad_items_are_told_by_their_place_in_the_call() -> None:
    """The server counts within a request; the caller sees its own places and the server's codes."""
    error = error_of(Failure(422, "m", "invalid_input", errors=(InputError(2, "empty", "is empty"),)), URL, start=128)
    assert isinstance(error, BadInput)
    assert error.errors == (InputError(130, "empty", "is empty"),)


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b'{"data": [{"id": "gpt"}]}', b'{"data": [{"embedfleet": {}}]}', b"{}"]
)
def test_another_servers_models_are_a_protocol_error(body: bytes) -> None:
    """What is no embedfleet server is said to be none, with the beginning of its answer."""
    with pytest.raises(ProtocolError, match="does not answer like an embedfleet server"):
        read_models(body, URL)


def test_a_card_may_know_little_and_say_more() -> None:
    """A model that is not loaded has no figures, and a newer server's further fields do no harm."""
    entry = {
        "id": "code",
        "embedfleet": {"service": "s", "state": "Pending", "max_inputs": 9, "dimensions": None, "new": 1},
    }
    (card,) = read_models(json.dumps({"data": [entry]}).encode(), URL)
    assert (card.name, card.service, card.dimensions, card.max_inputs) == ("code", "s", None, 9)
