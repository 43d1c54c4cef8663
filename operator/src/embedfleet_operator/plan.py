"""What was decided about a rollout: told by `rollout`, carried out by `render`, put into words by `status`."""

from dataclasses import dataclass
from typing import Literal

from embedfleet_operator.observed import Way

Why = Literal["Settled", "Surging", "WaitingForCapacity", "NoRoom", "NeverFits", "AsAsked", "SingleNodeVolume"]
"""Settled: nothing to roll out. Surging: a new pod comes first. WaitingForCapacity: it finds no room, yet. NoRoom: it
has found none for too long. NeverFits: nor would it if an old pod left, since no node is large
enough or it is not room that is lacking. AsAsked: the spec says DrainFirst.
SingleNodeVolume: a claim can be mounted on one node only, which the old pod holds."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How new pods take the place of old ones just now."""

    way: Way
    why: Why
    is_blocked: bool = False
    """A new pod has found no room for longer than `waitForCapacitySeconds`."""
    look_again_seconds: float | None = None
    """When time alone would change the plan."""
