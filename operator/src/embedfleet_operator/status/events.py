"""Events on transitions, and on nothing else: what `kubectl describe` tells of how the service got here."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from embedfleet.api.status import Condition
from embedfleet_operator.status.causes import CAUSES

_MOST_CHARACTERS = 1024  # of an event's note: what the API server takes
_QUIET = ("NotRolling", "AsAsked", "NoAnswer", "NoPods", "RolloutProceeds")
"""Reasons worth no event: they say that there is nothing to say."""


@dataclass(frozen=True, slots=True)
class Notice:
    """An event to be made about the service."""

    kind: Literal["Normal", "Warning"]
    reason: str
    message: str


def transitions(old: Iterable[Condition], new: Iterable[Condition]) -> list[Notice]:
    """An event for each reason that a condition newly has; other words under the same reason are no news.

    A reason that several conditions take up at once is told once, by the first of them.
    """
    before = {(condition.type, condition.status, condition.reason) for condition in old}
    told: dict[str, Notice] = {}
    for condition in new:
        if (condition.type, condition.status, condition.reason) not in before and condition.reason not in _QUIET:
            told.setdefault(condition.reason, _notice(condition))
    return list(told.values())


def _notice(condition: Condition) -> Notice:
    kind: Literal["Normal", "Warning"] = "Warning" if condition.reason in CAUSES else "Normal"
    return Notice(kind, condition.reason, condition.message[:_MOST_CHARACTERS])
