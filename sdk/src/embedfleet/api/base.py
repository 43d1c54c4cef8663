"""The base of every contract type: strict, frozen, camelCase outside, and rules that pydantic and CEL share."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydantic_core.core_schema import ValidatorFunctionWrapHandler

NAME_PATTERN = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
"""A DNS-1035 label: what Kubernetes asks of a Service's name."""

Plain = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule over several fields, told to the API server (CEL) and to Python at once.

    `holds` gets the object as plain camelCase mappings, defaults not filled in and types not checked: it is asked even
    when a field is wrong, so that one look names every mistake. What it cannot judge (a `TypeError` and the like) is
    left to the field's own error.
    """

    expression: str
    message: str
    holds: Callable[[Plain], bool]

    def broken(self, plain: Plain) -> bool:
        """Whether the rule can be judged on `plain` and does not hold."""
        try:
            return not self.holds(plain)
        except (TypeError, AttributeError, KeyError, ValueError, IndexError):
            return False


class ContractModel(BaseModel):
    """Base of the contract's types: unknown keys, coercions and broken rules are refused, all in one go."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )
    cel_rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="wrap")
    @classmethod
    def _every_mistake(cls, data: Any, handler: ValidatorFunctionWrapHandler) -> Self:
        errors: list[InitErrorDetails] = []
        try:
            made: Self = handler(data)
        except ValidationError as error:
            errors = [_named(cls, _detail(item)) for item in error.errors(include_url=False)]
        errors += _broken(cls.cel_rules, data)
        if errors:
            raise ValidationError.from_exception_data(cls.__name__, errors)
        return made


def plain(value: Any) -> Any:
    """`value` as plain mappings and lists with camelCase keys, whatever mixture of models and dicts it was."""
    if isinstance(value, BaseModel):
        return value.model_dump(by_alias=True, exclude_none=True)
    if isinstance(value, Mapping):
        return {to_camel(k) if isinstance(k, str) and "_" in k else k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def nearest(word: str, known: Sequence[str]) -> str:
    """A hint that names the known word nearest to `word`, or all known ones when none is near."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(sorted(known))}"


def _broken(rules: tuple[Rule, ...], data: Any) -> list[InitErrorDetails]:
    raw = plain(data)
    if not isinstance(raw, Mapping):
        return []
    return [_custom("rule", rule.message, (), data) for rule in rules if rule.broken(raw)]


def _detail(error: Any) -> InitErrorDetails:
    """A line error as it can be raised again: custom ones keep their message, pydantic's own their type."""
    loc, given = error["loc"], error["input"]
    if error["type"] in _CUSTOM:
        return _custom(error["type"], error["msg"], loc, given)
    return InitErrorDetails(type=error["type"], loc=loc, input=given, ctx=error.get("ctx", {}))


def _named(cls: type[BaseModel], detail: InitErrorDetails) -> InitErrorDetails:
    """An unknown key of this very type gets the nearest known one named."""
    loc = detail.get("loc", ())
    if detail["type"] != "extra_forbidden" or len(loc) != 1:
        return detail
    known = [field.alias or name for name, field in cls.model_fields.items()]
    return _custom("unknown_key", f"is not a known field; {nearest(str(loc[0]), known)}", loc, detail["input"])


_CUSTOM = ("rule", "unknown_key")


def _custom(kind: str, message: str, loc: tuple[int | str, ...], given: Any) -> InitErrorDetails:
    # The message goes in as context, since braces in a template would be taken for fields.
    return InitErrorDetails(type=PydanticCustomError(kind, "{text}", {"text": message}), loc=loc, input=given)  # type: ignore[arg-type, unused-ignore]  # literal strings only
