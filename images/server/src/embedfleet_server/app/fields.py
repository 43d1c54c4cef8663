"""The fields of a JSON body: what each may hold, in words and as JSON schema, in one row of one table.

The check and the OpenAPI document are made from the same rows.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from embedfleet.api.base import nearest
from embedfleet_server.engine.errors import InvalidRequest

Schema = Mapping[str, Any]
_NAMED = 10
"""Most mistakes that a message names: to find what an unknown field is near to takes up to 0.4 ms (measured)."""
_COMPARED = 80  # characters of an unknown field: no field is longer, and the time for one grows with its length


@dataclass(frozen=True, slots=True)
class Field:
    """One field. `rule` ends the sentence "NAME is VALUE: it …"; `required` means that null will not do either."""

    holds: Callable[[Any], bool]
    rule: str
    schema: Schema
    about: str = ""
    required: bool = False


Fields = Mapping[str, Field]


def check(document: Mapping[str, Any], fields: Fields) -> None:
    """Raises `InvalidRequest` naming the wrong fields, the first ten of many.

    Null is unset: clients send it for what was not given.
    """
    wrong = list(islice(_wrong(document, fields), _NAMED + 1))
    if wrong:
        texts = [text for _, text in wrong[:_NAMED]] + ["and more"] * (len(wrong) > _NAMED)
        raise InvalidRequest("; ".join(texts), wrong[0][0][:_COMPARED])


def _wrong(document: Mapping[str, Any], fields: Fields) -> Iterator[tuple[str, str]]:
    """Each wrong field and what is wrong with it."""
    yield from ((key, f"{key} is required") for key, field in fields.items() if field.required and key not in document)
    yield from ((k, text) for k, value in document.items() if (text := _problem(k, value, fields)) is not None)


def schema(fields: Fields) -> dict[str, Any]:
    """The JSON schema of an object with these fields and no others."""
    return {
        "type": "object",
        "properties": {name: _schema_of(field) for name, field in fields.items()},
        "required": [name for name, field in fields.items() if field.required],
        "additionalProperties": False,
    }


def _schema_of(field: Field) -> dict[str, Any]:
    given = dict(field.schema) if field.required else {"anyOf": [dict(field.schema), {"type": "null"}]}
    return given | ({"description": field.about} if field.about else {})


def _problem(key: str, value: Any, fields: Fields) -> str | None:
    field = fields.get(key)
    if field is None:
        return f"{short(key)} is not a known field; {nearest(key[:_COMPARED], list(fields))}"
    if field.holds(value) or (value is None and not field.required):
        return None
    return f"{key} is {short(value)}: it {field.rule}"


def text(about: str = "", *, required: bool = False) -> Field:
    """A string."""
    return Field(lambda value: isinstance(value, str), "must be a string", {"type": "string"}, about, required)


def flag(about: str) -> Field:
    """True or false."""
    return Field(lambda value: isinstance(value, bool), "must be true or false", {"type": "boolean"}, about)


def positive(about: str) -> Field:
    """A whole number from 1 on."""
    return Field(
        lambda value: type(value) is int and value >= 1,
        "must be a whole number, at least 1",
        {"type": "integer", "minimum": 1},
        about,
    )


def one_of(*choices: str, about: str = "") -> Field:
    """One of a few strings."""
    words = " or ".join(repr(choice) for choice in choices)
    return Field(lambda value: value in choices, f"must be {words}", {"type": "string", "enum": [*choices]}, about)


def kind(value: Any) -> str:
    """What a JSON value is, with its article."""
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a string"}
    return names.get(type(value), "a list" if isinstance(value, list) else "an object")


def short(value: Any) -> str:
    """`value` as JSON writes it, cut to what a message can show."""
    shown = json.dumps(value) if not isinstance(value, dict | list) else kind(value)
    return shown if len(shown) <= 60 else shown[:59] + "…"
