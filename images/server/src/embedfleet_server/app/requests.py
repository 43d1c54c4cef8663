"""From bytes to a checked request. Whatever is wrong is refused here, once, with every bad input listed."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeGuard

from embedfleet.api.base import nearest
from embedfleet_server.app.errors import OverlongItems
from embedfleet_server.engine.errors import BadItems, InvalidRequest, ItemError, TooLarge
from embedfleet_server.engine.protocols import Item

Encoding = Literal["float", "base64"]
EMPTY, WRONG_TYPE, TOO_LONG = "empty", "wrong_type", "too_long"
LONE_SURROGATE, OUT_OF_RANGE = "lone_surrogate", "token_out_of_range"
_LARGEST_TOKEN_ID = 2**31 - 1  # more than any vocabulary; keeps ids within what the models' tensors hold


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """A checked request: `items` in the order asked for, `bad` what cannot be embedded, by index."""

    items: Sequence[Item]
    model: str | None = None
    encoding: Encoding = "float"
    dimensions: int | None = None
    input_type: str | None = None
    bad: Mapping[int, ItemError] = field(default_factory=dict)


def parse(body: bytes, *, max_inputs: int, max_characters: int) -> EmbeddingRequest:
    """The request in `body`; raises `InvalidRequest` or `TooLarge`. Bad inputs are in `bad`: see `raise_bad`."""
    document = _decode(body)
    _check_fields(document)
    items = _items(document["input"], max_inputs)
    return EmbeddingRequest(
        items=items,
        model=document.get("model"),
        encoding=document.get("encoding_format") or "float",
        dimensions=document.get("dimensions"),
        input_type=document.get("input_type"),
        bad={error.index: error for error in _bad_items(items, max_characters)},
    )


def out_of_range(items: Sequence[Item], vocabulary: int) -> list[ItemError]:
    """The token id lists that hold an id the model does not know, `vocabulary` being its number of ids."""
    lists = ((i, item) for i, item in enumerate(items) if isinstance(item, list) and set(map(type, item)) == {int})
    return [error for i, ids in lists if (error := _range_error(i, ids, vocabulary)) is not None]


def raise_bad(bad: Mapping[int, ItemError]) -> None:
    """Raises `BadItems` listing every one, or `OverlongItems` when length is all that is wrong."""
    if bad:
        errors = [bad[index] for index in sorted(bad)]
        raise (OverlongItems if all(e.code == TOO_LONG for e in errors) else BadItems)(errors)


def _decode(body: bytes) -> dict[str, Any]:
    """Strict JSON: one object, no duplicate keys, no NaN or Infinity, nothing deep."""
    try:
        document = _DECODER.decode(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not UTF-8: byte {error.start}") from error
    except RecursionError as error:
        raise InvalidRequest("the body is nested too deeply; input is at most a list of lists") from error
    except ValueError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidRequest(f"the body must be a JSON object, not {_kind(document)}")
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise InvalidRequest(f"the key {next(k for k in keys if keys.count(k) > 1)!r} stands more than once")
    return found


def _refuse_constant(name: str) -> Any:
    raise InvalidRequest(f"the body is not valid JSON: {name} is no JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_positive(value: Any) -> bool:
    return type(value) is int and value >= 1


_FIELDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "input": (
        lambda v: isinstance(v, str | list),
        "must be a string, a list of strings, a list of token ids or a list of such lists",
    ),
    "model": (_is_text, "must be a string"),
    "encoding_format": (lambda v: v in ("float", "base64"), "must be 'float' or 'base64'"),
    "dimensions": (_is_positive, "must be a whole number, at least 1"),
    "input_type": (lambda v: v in ("query", "document"), "must be 'query' or 'document'"),
    "user": (_is_text, "must be a string"),
}
"""What a request may hold. OpenAI's clients send null for what is unset, so null is unset but for `input`."""


def _check_fields(document: Mapping[str, Any]) -> None:
    """Raises `InvalidRequest` naming every wrong field."""
    wrong = [(key, text) for key, value in document.items() if (text := _field_problem(key, value)) is not None]
    if "input" not in document:
        wrong.insert(0, ("input", "input is required"))
    if wrong:
        raise InvalidRequest("; ".join(text for _, text in wrong), wrong[0][0])


def _field_problem(key: str, value: Any) -> str | None:
    if key not in _FIELDS:
        return f"{_short(key)} is not a known field; {nearest(key, list(_FIELDS))}"
    holds, rule = _FIELDS[key]
    if holds(value) or (value is None and key != "input"):
        return None
    return f"{key} is {_short(value)}: it {rule}"


def _items(given: str | list[Any], max_inputs: int) -> Sequence[Item]:
    """The inputs one by one; a list of numbers is one input, made of token ids."""
    if isinstance(given, str):
        return [given]
    if not given:
        raise InvalidRequest("input is an empty list: there is nothing to embed", "input")
    if _is_number(given[0]):
        return [given]
    if len(given) > max_inputs:
        raise TooLarge(f"input holds {len(given)} entries; one request may carry at most {max_inputs}")
    return given


def _bad_items(items: Sequence[Any], max_characters: int) -> list[ItemError]:
    """Every input that cannot be embedded whatever the model."""
    if _all_plain(items, max_characters):
        return []
    wanted = list if isinstance(items[0], list) else str
    found = (_item_error(i, item, wanted, max_characters) for i, item in enumerate(items))
    return [error for error in found if error is not None]


def _all_plain(items: Sequence[Any], max_characters: int) -> bool:
    """Whether all are sound texts: the common case, told without a Python step per input."""
    if set(map(type, items)) != {str} or not all(items) or max(map(len, items)) > max_characters:
        return False
    return all(map(str.isascii, items)) or not any(map(_has_surrogate, items))


def _item_error(index: int, item: Any, wanted: type[str] | type[list[Any]], max_characters: int) -> ItemError | None:
    if type(item) is not wanted:
        expected = "a list of token ids" if wanted is list else "a string"
        return ItemError(index, WRONG_TYPE, f"is {_kind(item)}; every input here must be {expected}")
    if not item:
        return ItemError(index, EMPTY, "is empty: there is nothing to embed")
    if len(item) > max_characters:
        unit = "token ids" if wanted is list else "characters"
        return ItemError(index, TOO_LONG, f"has {len(item)} {unit}; at most {max_characters} are taken")
    return _text_error(index, item) if isinstance(item, str) else _ids_error(index, item)


def _text_error(index: int, text: str) -> ItemError | None:
    if not _has_surrogate(text):
        return None
    return ItemError(index, LONE_SURROGATE, "holds a lone surrogate, which is no character")


def _ids_error(index: int, ids: list[Any]) -> ItemError | None:
    if set(map(type, ids)) != {int}:
        place, wrong = next((i, value) for i, value in enumerate(ids) if type(value) is not int)
        return ItemError(index, WRONG_TYPE, f"holds {_short(wrong)} at {place}; token ids are whole numbers")
    return _range_error(index, ids, _LARGEST_TOKEN_ID + 1)


def _range_error(index: int, ids: list[int], vocabulary: int) -> ItemError | None:
    if not ids or (min(ids) >= 0 and max(ids) < vocabulary):
        return None
    wrong = next(value for value in ids if not 0 <= value < vocabulary)
    return ItemError(index, OUT_OF_RANGE, f"holds token id {_short(wrong)}; ids go from 0 to {vocabulary - 1}")


def _has_surrogate(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a string"}
    return names.get(type(value), "a list" if isinstance(value, list) else "an object")


def _short(value: Any) -> str:
    """`value` as JSON writes it, cut to what a message can show."""
    shown = json.dumps(value) if not isinstance(value, dict | list) else _kind(value)
    return shown if len(shown) <= 60 else shown[:59] + "…"
