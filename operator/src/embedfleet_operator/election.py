"""Who leads, decided from a Lease: pure, both clocks are arguments.

As client-go does it: another's hold counts from the moment when this process saw the Lease change, by its own clock,
so that clocks that differ between machines do no harm.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from embedfleet_operator.observed import plain

DURATION_SECONDS = 15
"""A leader that was killed is followed after so long, by default; one that ends gives the Lease back."""
_RENEWALS = 5
"""In the time of a hold: two that fail do no harm yet."""
_MICROSECONDS = "%Y-%m-%dT%H:%M:%S.%fZ"


@dataclass(frozen=True, slots=True)
class Sight:
    """A Lease's version, and when this process first saw it."""

    version: str | None = None
    since: float = 0.0


def renew_seconds(duration: int) -> float:
    """Between two renewals of a Lease that is held for `duration` seconds, or two looks of a standby."""
    return duration / _RENEWALS


def deadline_seconds(duration: int) -> float:
    """A leader that could not renew for so long stops writing, well before another may begin."""
    return duration * 2 / 3


def look(sight: Sight, lease: Mapping[str, Any], now: float) -> Sight:
    """What is now known of `lease`, seen at `now`."""
    version = plain.text(lease, "metadata", "resourceVersion")
    return sight if version == sight.version else Sight(version, now)


def may_take(lease: Mapping[str, Any], sight: Sight, identity: str, now: float) -> bool:
    """Whether `identity` may write itself into `lease`: it is its own, nobody's, or its holder has not renewed it."""
    holder = plain.text(lease, "spec", "holderIdentity")
    if not holder or holder == identity:
        return True
    held = plain.number(lease, "spec", "leaseDurationSeconds") or DURATION_SECONDS
    return now - sight.since > held


def taken(lease: Mapping[str, Any], identity: str, now: datetime, duration: int = DURATION_SECONDS) -> dict[str, Any]:
    """`lease` with `identity` as its holder for `duration` seconds; its version stays, so that of two takers one is
    refused.
    """
    old = plain.mapping(lease, "spec")
    stamp = now.astimezone(UTC).strftime(_MICROSECONDS)
    fresh = old.get("holderIdentity") != identity
    spec = {
        **old,
        "holderIdentity": identity,
        "leaseDurationSeconds": duration,
        "acquireTime": stamp if fresh else old.get("acquireTime", stamp),
        "renewTime": stamp,
        "leaseTransitions": (plain.number(old, "leaseTransitions") or 0) + int(fresh),
    }
    return {**lease, "spec": spec}


def released(lease: Mapping[str, Any]) -> dict[str, Any]:
    """`lease` without a holder, so that another need not wait."""
    return {**lease, "spec": {**plain.mapping(lease, "spec"), "holderIdentity": "", "leaseDurationSeconds": 1}}


def new(namespace: str, name: str) -> dict[str, Any]:
    """A Lease that nobody holds."""
    metadata = {"namespace": namespace, "name": name}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {}}
