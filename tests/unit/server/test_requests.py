"""The edge: bytes become a checked request, or a refusal that names everything wrong."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedfleet_server.app.errors import OverlongItems
from embedfleet_server.app.requests import EmbeddingRequest, out_of_range, parse, raise_bad
from embedfleet_server.engine.errors import BadItems, InvalidRequest, TooLarge


def read(body: bytes | dict[str, Any], *, max_inputs: int = 10, max_characters: int = 50) -> EmbeddingRequest:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse(raw, max_inputs=max_inputs, max_characters=max_characters)


def codes(request: EmbeddingRequest) -> dict[int, str]:
    return {index: error.code for index, error in request.bad.items()}


@pytest.mark.parametrize(
    ("given_input", "items"),
    [("one", ["one"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]])],
)
def test_four_shapes_of_input(given_input: Any, items: list[Any]) -> None:
    """A string, strings, token ids and lists of token ids each become one item per input."""
    request = read({"input": given_input})
    assert (list(request.items), dict(request.bad)) == (items, {})


def test_all_fields_are_read_and_null_is_unset() -> None:
    """Every field of the wire is taken; null, as OpenAI's clients send it, is the default."""
    full = read({"input": "x", "model": "m", "encoding_format": "base64", "dimensions": 4, "input_type": "query"})
    assert (full.model, full.encoding, full.dimensions, full.input_type) == ("m", "base64", 4, "query")
    empty = {"model": None, "encoding_format": None, "dimensions": None, "input_type": None, "user": None}
    bare = read({"input": "x", **empty})
    assert (bare.model, bare.encoding, bare.dimensions, bare.input_type) == (None, "float", None, None)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"input": [NaN]}', "NaN"),
        (b'{"input": "x", "dimensions": -Infinity}', "-Infinity"),
        (b'{"input": "x", "input": "y"}', "'input' stands more than once"),
        (b'{"input": "x", "\\u0069nput": "y"}', "more than once"),
        (b'{"input": {"a": 1, "a": 2}}', "more than once"),
        (b'{"input": "x"', "not valid JSON"),
        (b'{"input": "x"} trailing', "not valid JSON"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        (b"\xff\xfe{", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"input": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"input": "x", "dimensions": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'["x"]', "must be a JSON object, not a list"),
        (b"null", "not null"),
        (b"{}", "input is required"),
        (b'{"inputs": "x"}', "did you mean 'input'"),
        (b'{"input": "x", "zzz": 1}', "known here"),
        (b'{"input": null}', "input is null"),
        (b'{"input": 7}', "input is 7"),
        (b'{"input": {}}', "input is an object"),
        (b'{"input": []}', "nothing to embed"),
        (b'{"input": "x", "encoding_format": "hex"}', "must be 'float' or 'base64'"),
        (b'{"input": "x", "encoding_format": ["float"]}', "must be 'float' or 'base64'"),
        (b'{"input": "x", "dimensions": true}', "dimensions is true"),
        (b'{"input": "x", "dimensions": 0}', "at least 1"),
        (b'{"input": "x", "dimensions": 1e400}', "dimensions is"),
        (b'{"input": "x", "model": 3}', "model is 3"),
        (b'{"input": "x", "input_type": "passage"}', "must be 'query' or 'document'"),
    ],
)
def test_malformed_requests(body: bytes, words: str) -> None:
    """A request malformed as a whole is refused with words that name what is wrong."""
    with pytest.raises(InvalidRequest, match=re.escape(words)):
        read(body)


def test_every_wrong_field_is_named() -> None:
    """Several wrong fields are told in one go, the first as `param`."""
    with pytest.raises(InvalidRequest, match=r'model is 1.*dimensions is "4".*"modle" is not a known field') as caught:
        read(b'{"input": "x", "model": 1, "dimensions": "4", "modle": 2}')
    assert caught.value.param == "model"


def test_every_bad_text_is_listed() -> None:
    """Empty, overlong, wrongly typed and surrogate texts are all listed by index; good ones are not."""
    body = b'{"input": ["ok", "", "\\ud800", 5, null, ["a"], "' + b"x" * 51 + b'", "\\ud83d\\ude00"]}'
    expected = {1: "empty", 2: "lone_surrogate", 3: "wrong_type", 4: "wrong_type", 5: "wrong_type", 6: "too_long"}
    request = read(body)
    assert codes(request) == expected
    with pytest.raises(BadItems) as caught:
        raise_bad(request.bad)
    assert [error.index for error in caught.value.errors] == sorted(expected)


def test_every_bad_list_of_token_ids_is_listed() -> None:
    """Ids that are no whole numbers, negative, huge or missing are listed by index."""
    request = read({"input": [[1], [], [1.5], [True], [-1], [2**40], "text", [0, 2, 3]]})
    expected = {1: "empty", 2: "wrong_type", 3: "wrong_type", 4: "token_out_of_range", 5: "token_out_of_range"}
    assert codes(request) == expected | {6: "wrong_type"}
    assert codes(read({"input": [1, "a"]})) == {0: "wrong_type"}
    assert [error.index for error in out_of_range([[1], [5, 9], "text", [10]], 9)] == [1, 3]


def test_too_long_alone_is_too_large() -> None:
    """Where length is all that is wrong, the refusal is of size (413), else of content (422)."""
    with pytest.raises(OverlongItems):
        raise_bad(read({"input": ["x" * 51, "ok"]}).bad)
    with pytest.raises(BadItems) as caught:
        raise_bad(read({"input": ["x" * 51, ""]}).bad)
    assert not isinstance(caught.value, OverlongItems)


def test_too_many_inputs() -> None:
    """More inputs than a queue could ever take are refused with the number that fits."""
    with pytest.raises(TooLarge, match="11 entries; one request may carry at most 10"):
        read({"input": ["x"] * 11})


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=10))
def test_any_real_text_passes_unchanged(texts: list[str]) -> None:
    """Whatever Unicode texts come, escaped or raw, arrive as they are."""
    for ascii_only in (True, False):
        request = read(json.dumps({"input": texts}, ensure_ascii=ascii_only).encode())
        assert (list(request.items), request.bad) == (texts, {})


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_read(body: bytes) -> None:
    """No bytes whatever raise anything but the errors of the table."""
    try:
        request = read(body)
    except (InvalidRequest, TooLarge):
        return
    assert request.items


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(_JSON)
def test_any_json_as_input_is_refused_or_checked(value: Any) -> None:
    """Whatever JSON stands in `input`, each item that is not listed as bad is a text or token ids."""
    try:
        request = read({"input": value})
    except (InvalidRequest, TooLarge):
        return
    for index, item in enumerate(request.items):
        if index not in request.bad:
            assert isinstance(item, str | list)
            assert isinstance(item, str) or all(type(token) is int and token >= 0 for token in item)
