"""Tolerant reads from plain mappings: a missing or ill-typed value is None, or an empty list or mapping."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

Plain = Mapping[str, Any]
_EMPTY: Plain = {}


def at(tree: Any, *steps: str) -> Any:
    """What stands at the path; None where any step is not there."""
    for step in steps:
        tree = tree.get(step) if isinstance(tree, Mapping) else None
    return tree


def text(tree: Any, *steps: str) -> str | None:
    """A text at the path."""
    found = at(tree, *steps)
    return found if isinstance(found, str) else None


def number(tree: Any, *steps: str) -> int | None:
    """A whole number at the path; true and false are none."""
    found = at(tree, *steps)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def flag(tree: Any, *steps: str) -> bool:
    """Whether true stands at the path."""
    return at(tree, *steps) is True


def mapping(tree: Any, *steps: str) -> Plain:
    """A mapping at the path."""
    found = at(tree, *steps)
    return found if isinstance(found, Mapping) else _EMPTY


def entries(tree: Any, *steps: str) -> list[Plain]:
    """The mappings of a list at the path; other entries are passed over."""
    found = at(tree, *steps)
    return [entry for entry in found if isinstance(entry, Mapping)] if isinstance(found, list) else []


def time(tree: Any, *steps: str) -> datetime | None:
    """A time at the path, in Kubernetes' form."""
    found = text(tree, *steps)
    if found is None:
        return None
    try:
        parsed = datetime.fromisoformat(found)
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def owner_uid(tree: Any, kind: str) -> str | None:
    """The uid of the controller of that kind."""
    owners = entries(tree, "metadata", "ownerReferences")
    return next((text(one, "uid") for one in owners if flag(one, "controller") and text(one, "kind") == kind), None)
