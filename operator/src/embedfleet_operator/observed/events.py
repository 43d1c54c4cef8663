"""Kubernetes' events about a service's objects: what the kubelet and the controllers say and no status holds."""

from dataclasses import dataclass
from datetime import datetime

from embedfleet_operator.observed import plain
from embedfleet_operator.observed.plain import Plain


@dataclass(frozen=True, slots=True)
class Event:
    """One event."""

    about: str
    """Uid of the object it is about."""
    reason: str
    message: str
    is_warning: bool = False
    last: datetime | None = None
    """When it last happened."""


def event(tree: Plain) -> Event:
    """An event of either API (`v1` or `events.k8s.io/v1`)."""
    about = plain.mapping(tree, "involvedObject") or plain.mapping(tree, "regarding")
    times = (("series", "lastObservedTime"), ("lastTimestamp",), ("deprecatedLastTimestamp",), ("eventTime",))
    found = (plain.time(tree, *steps) for steps in times)
    return Event(
        about=plain.text(about, "uid") or "",
        reason=plain.text(tree, "reason") or "",
        message=plain.text(tree, "message") or plain.text(tree, "note") or "",
        is_warning=plain.text(tree, "type") == "Warning",
        last=next((one for one in found if one is not None), None),
    )
