"""The part of docs/operations.md that is made from the operator's tables; what people write around it stays."""

from collections.abc import Iterable

from embedfleet_operator.status.causes import CAUSES, Cause
from embedfleet_operator.status.states import STATES, TYPES

_BEGIN = "<!-- Generated from embedfleet_operator.status by `make generate`; edit the tables there. -->"
_END = "<!-- End of the generated part. -->"
_PAGE = f"# Operations\n\n{_BEGIN}\n{_END}\n"


def page(written: str | None) -> str:
    """The page with its generated part as it should be; `written` is the page as it is, None when there is none."""
    text = written if written is not None and _BEGIN in written and _END in written else _PAGE
    before, _, rest = text.partition(_BEGIN)
    return f"{before}{_BEGIN}\n{_generated()}{_END}{rest.partition(_END)[2]}"


def _generated() -> str:
    return "\n".join([_conditions(), _causes("Causes", blocking()), _causes("Causes of Degraded", lesser()), _states()])


def blocking() -> list[Cause]:
    """Causes that keep the newest spec from being served."""
    return [cause for cause in CAUSES.values() if cause.blocks]


def lesser() -> list[Cause]:
    """Causes by which the service is less than was asked for."""
    return [cause for cause in CAUSES.values() if not cause.blocks]


def _conditions() -> str:
    rows = [f"| `{kind.name}` | {kind.true} | {kind.false} |" for kind in TYPES]
    return "\n".join(["## Conditions", "", "| type | True | False |", "|---|---|---|", *rows, ""])


def _causes(title: str, causes: Iterable[Cause]) -> str:
    rows = [f"| `{cause.reason}` | {cause.seen} | {_sentence(cause.remedy)} |" for cause in causes]
    return "\n".join([f"## {title}", "", "| reason | what has been seen | what to do |", "|---|---|---|", *rows, ""])


def _states() -> str:
    rows = [f"| `{reason}` | {meaning} |" for reason, meaning in STATES.items()]
    head = ["## Reasons of a service that is well, or on its way", "", "| reason | meaning |", "|---|---|"]
    return "\n".join([*head, *rows, ""])


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
