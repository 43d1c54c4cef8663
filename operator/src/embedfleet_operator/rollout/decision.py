"""Surge, wait, drain first, and back again: decided from capacity and progress, and from nothing remembered.

What is in force now is read off the Deployment, so a new leader decides as the old one would have.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from embedfleet.api import EmbeddingService
from embedfleet.api.pods import Strategy
from embedfleet_operator import references
from embedfleet_operator.observed import Observed, Pod, Way
from embedfleet_operator.plan import Plan

_NO_ROOM = "Insufficient "
"""How the scheduler says that a node would do if less were taken on it; only then would an old pod's leaving help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a rollout is."""

    strategy: Strategy = "Auto"
    wait_seconds: int = 300
    way: Way = "Surge"
    """In force now."""
    is_rolling: bool = True
    """Pods of an older template are still there, or have yet to be replaced."""
    waiting_seconds: float | None = None
    """How long a new pod has found no node; None when each has one."""
    lacks_room: bool = True
    """Where a new pod waits: whether an old one's leaving would help."""
    ever_fits: bool | None = None
    """Whether a node would be large enough if it were empty; None when that cannot be told."""
    has_single_node_volume: bool = False


def decide(progress: Progress) -> Plan:
    """The way new pods take the place of old ones from now on."""
    waited = progress.waiting_seconds is not None and progress.waiting_seconds >= progress.wait_seconds
    blocked = progress.is_rolling and waited
    if progress.strategy == "DrainFirst":
        return Plan("DrainFirst", "AsAsked", blocked)
    if progress.has_single_node_volume:
        return Plan("DrainFirst", "SingleNodeVolume", blocked)
    if not progress.is_rolling:
        return Plan("Surge", "Settled")
    if progress.strategy == "Auto" and progress.way == "DrainFirst":
        return Plan("DrainFirst", "NoRoom", blocked)  # to the end of this rollout: in between it would only stall again
    return _surging(progress, blocked=blocked)


def _surging(progress: Progress, *, blocked: bool) -> Plan:
    if progress.waiting_seconds is None:
        return Plan("Surge", "Surging")
    if not blocked:
        return Plan("Surge", "WaitingForCapacity", look_again_seconds=progress.wait_seconds - progress.waiting_seconds)
    if progress.ever_fits is False or not progress.lacks_room:
        return Plan("Surge", "NeverFits", is_blocked=True)  # to take an old pod away would help nobody
    return Plan("DrainFirst" if progress.strategy == "Auto" else "Surge", "NoRoom", is_blocked=True)


def progress(service: EmbeddingService, observed: Observed, now: datetime) -> Progress:
    """How far the rollout of `service` is; `now` in UTC."""
    wanted = service.spec.rollout
    return Progress(
        strategy=wanted.strategy,
        wait_seconds=wanted.wait_for_capacity_seconds,
        way=observed.deployment.way if observed.deployment else "Surge",
        is_rolling=_is_rolling(observed),
        waiting_seconds=_longest_wait(observed.new_pods, now),
        lacks_room=any(_lacks_room(pod) for pod in observed.new_pods),
        ever_fits=observed.capacity.ever_fits,
        has_single_node_volume=_has_single_node_volume(service, observed),
    )


def _is_rolling(observed: Observed) -> bool:
    """Whether old pods are being replaced; a first start and a scale-up replace nothing."""
    deployment = observed.deployment
    if deployment is None or deployment.wanted == 0:
        return False
    return bool(observed.old_pods)


def _longest_wait(pods: Iterable[Pod], now: datetime) -> float | None:
    waits = [_wait(pod, now) for pod in pods]
    return max((wait for wait in waits if wait is not None), default=None)


def _wait(pod: Pod, now: datetime) -> float | None:
    found = pod.unschedulable
    if found is None:
        return None
    began = found.since or pod.created or now
    return max(0.0, (now - began).total_seconds())


def _lacks_room(pod: Pod) -> bool:
    return pod.unschedulable is not None and _NO_ROOM in pod.unschedulable.message


def _has_single_node_volume(service: EmbeddingService, observed: Observed) -> bool:
    named = references.claims(service)
    return any(claim.is_single_node for claim in observed.claims if claim.name in named)
