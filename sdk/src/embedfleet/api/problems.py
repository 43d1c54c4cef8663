"""What is wrong with a manifest, in words: where, the value, and what it must be."""

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

_WORDS = {
    "missing": "is required",
    "rule": "{text}",
    "unknown_key": "{text}",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "string_type": "must be a string",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "string_pattern_mismatch": "must match {pattern}",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
    "too_long": "must have at most {max_length} entries",
    "too_short": "must have at least {min_length} entries",
}
_LONGEST_VALUE = 60


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: the dotted path of the field, its value as text, and what must hold."""

    where: str
    value: str | None
    message: str

    def __str__(self) -> str:
        shown = f" is {self.value}" if self.value is not None else ""
        return f"{self.where}{shown}: {self.message}"


def problems(error: ValidationError) -> list[Problem]:
    """Every mistake of `error`, in the order of the manifest."""
    return [_problem(item) for item in error.errors(include_url=False)]


def _problem(item: Any) -> Problem:
    words = _WORDS.get(item["type"])
    message = words.format(**item.get("ctx", {})) if words else item["msg"]
    return Problem(_path(item["loc"]), _value(item), message)


def _path(loc: tuple[int | str, ...]) -> str:
    parts = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return parts.lstrip(".") or "manifest"


def _value(item: Any) -> str | None:
    given = item["input"]
    if item["type"] in ("missing", "unknown_key", "rule") and isinstance(given, dict | list):
        return None
    if item["type"] in ("missing", "rule"):
        return None
    shown = repr(given)
    return shown if len(shown) <= _LONGEST_VALUE else shown[: _LONGEST_VALUE - 1] + "…"
