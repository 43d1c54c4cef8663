"""The formats of an answer: the same numbers in each."""

import base64
import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from embedfleet_server.app.answers import encode, is_large, npy, wanted
from embedfleet_server.app.outcome import Outcome
from embedfleet_server.engine.errors import ItemError
from embedfleet_server.engine.protocols import Rows
from tests.support.fake_model import INFO

pytestmark = pytest.mark.requirement("S1")


def outcome(rows: Rows, errors: dict[int, ItemError] | None = None) -> Outcome:
    return Outcome(rows, errors or {}, 5, 0.0015, 0.25, INFO)


def read_npy(body: bytes) -> Rows:
    return np.load(io.BytesIO(body), allow_pickle=False)  # type: ignore[no-any-return]


def from_base64(entry: Any) -> Rows:
    return np.frombuffer(base64.b64decode(entry["embedding"], validate=True), "<f4")


def bad(*indices: int, message: str = "is empty") -> dict[int, ItemError]:
    return {index: ItemError(index, "empty", message) for index in indices}


ROWS = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 130), st.just(8)), elements=st.floats(-(2.0**100), 2.0**100, width=32)
)  # more rows than one piece of JSON takes


@given(ROWS)
def test_float_base64_and_npy_are_the_same_numbers(rows: Rows) -> None:
    """All three formats give every float32 back bit by bit, each at its index."""
    made = outcome(rows)
    floats = json.loads(encode(made, 8, "float").body)["data"]
    packed = json.loads(encode(made, 8, "base64").body)["data"]
    assert [entry["index"] for entry in floats] == [entry["index"] for entry in packed] == list(range(len(rows)))
    np.testing.assert_array_equal(np.array([entry["embedding"] for entry in floats], np.float32), rows)
    np.testing.assert_array_equal(np.stack([from_base64(entry) for entry in packed]), rows)
    np.testing.assert_array_equal(read_npy(encode(made, 8, "npy").body), rows)


@given(st.integers(0, 12000), st.sampled_from([1, 3, 384, 1024]))
def test_npy_is_what_numpy_writes(n: int, d: int) -> None:
    """The hand-made .npy file is numpy's own, byte by byte."""
    rows = np.zeros((min(n, 50), d), np.float32)
    file = io.BytesIO()
    np.save(file, rows)
    assert npy(rows)[:10] == file.getvalue()[:10]
    read = read_npy(npy(rows))
    assert (read.shape, str(read.dtype), read.flags.c_contiguous) == (rows.shape, "float32", True)


def test_openai_shape_and_headers() -> None:
    """The JSON is OpenAI's, and the headers tell of model, cost and time."""
    made = encode(outcome(np.ones((2, 8), np.float32)), 8, "float")
    body = json.loads(made.body)
    assert (body["object"], body["model"], body["usage"]) == (
        "list",
        "semantic",
        {"prompt_tokens": 5, "total_tokens": 5},
    )
    assert set(body) == {"object", "data", "model", "usage"}
    assert body["data"][1] == {"object": "embedding", "index": 1, "embedding": [1.0] * 8}
    assert made.headers == {
        "X-Embedfleet-Model": "semantic",
        "X-Embedfleet-Fingerprint": "f" * 64,
        "X-Embedfleet-Precision": "float32",
        "X-Embedfleet-Tokens": "5",
        "X-Embedfleet-Queue-Milliseconds": "1.500",
        "X-Embedfleet-Compute-Milliseconds": "250.000",
    }


def test_the_inputs_that_lost_their_end_are_told() -> None:
    """Their places stand in a header, as many as fit, beside their number; without any there is neither."""
    rows = np.zeros((3, 8), np.float32)
    told = encode(replace(outcome(rows), truncated=[0, 2]), 8, "npy").headers
    assert (told["X-Embedfleet-Truncated"], told["X-Embedfleet-Truncated-Count"]) == ("0,2", "2")
    many = encode(replace(outcome(rows), truncated=range(100_000)), 8, "npy").headers
    assert len(many["X-Embedfleet-Truncated"]) < 6000
    assert many["X-Embedfleet-Truncated-Count"] == "100000"
    assert "X-Embedfleet-Truncated" not in encode(outcome(rows), 8, "npy").headers


def test_bad_rows_in_each_format() -> None:
    """A bad input is null among floats, NaN in base64 and npy, and named in `errors` or the header."""
    rows = np.ones((3, 8), np.float32)
    rows[1] = np.nan
    made = outcome(rows, bad(1))
    named = [{"index": 1, "code": "empty", "message": "is empty"}]
    floats = json.loads(encode(made, 4, "float").body)
    packed = json.loads(encode(made, 4, "base64").body)
    array = encode(made, 4, "npy")
    assert [entry["embedding"] is None for entry in floats["data"]] == [False, True, False]
    assert [bool(np.isnan(from_base64(entry)).all()) for entry in packed["data"]] == [False, True, False]
    assert np.isnan(read_npy(array.body)).all(axis=1).tolist() == [False, True, False]
    assert floats["errors"] == packed["errors"] == json.loads(array.headers["X-Embedfleet-Errors"]) == named


def test_the_errors_header_stays_within_what_clients_take() -> None:
    """With a thousand bad inputs the header holds the first of them in ASCII and says how many it leaves out."""
    rows = np.full((1000, 8), np.nan, np.float32)
    headers = encode(outcome(rows, bad(*range(1000), message="é\n\u2028")), 8, "npy").headers
    header = headers["X-Embedfleet-Errors"]
    assert header.isascii()
    assert header.isprintable()
    assert len(header) < 8000
    entries = json.loads(header)
    assert [entry["index"] for entry in entries] == list(range(len(entries)))
    assert len(entries) + int(headers["X-Embedfleet-Errors-Omitted"]) == 1000


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "base64"),
        ("*/*", "base64"),
        ("application/json", "base64"),
        ("application/x-npy", "npy"),
        ("application/json;q=0.5, Application/X-NPY ; q=1", "npy"),
        ("application/x-npy;q=0", "base64"),
        ("application/x-npy;q=0.000, */*", "base64"),
        ("application/x-npy2", "base64"),
    ],
)
def test_accept_that_names_npy_wins(accept: str | None, kind: str) -> None:
    """Only an `Accept` that names the .npy type with a weight above 0 asks for it."""
    assert wanted(accept, "base64") == kind


def test_large_answers_are_told_apart() -> None:
    """Floats leave the event loop past 64 KiB of vectors; the cheap formats later."""
    made = outcome(np.zeros((5000, 8), np.float32))
    assert is_large(made, 8, "float")
    assert not is_large(made, 2, "float")
    assert not is_large(made, 8, "base64")
    assert not is_large(made, 8, "npy")
