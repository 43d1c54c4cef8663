"""All that one pass sees of a service."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from embedfleet.api import EmbeddingService, problems
from embedfleet_operator.observed import plain
from embedfleet_operator.observed.capacity import Capacity
from embedfleet_operator.observed.events import Event
from embedfleet_operator.observed.plain import Plain
from embedfleet_operator.observed.pods import Pod
from embedfleet_operator.observed.workload import Deployment, ReplicaSet


@dataclass(frozen=True, slots=True)
class Claim:
    """A PersistentVolumeClaim."""

    name: str
    access_modes: tuple[str, ...] = ()
    phase: str = "Unknown"

    @property
    def is_single_node(self) -> bool:
        """Only one node at a time may mount it."""
        return bool(self.access_modes) and not any(mode.endswith("Many") for mode in self.access_modes)


@dataclass(frozen=True, slots=True)
class Secret:
    """What is known of a Secret that the spec names: never a value."""

    name: str
    exists: bool
    keys: frozenset[str] = frozenset()
    """Keys with a value that is not empty."""
    empty_keys: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the API server answered to a write."""

    kind: str
    name: str
    code: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A service and everything around it, at one moment."""

    service: Plain
    """The object as the API server gives it."""
    deployment: Deployment | None = None
    replica_sets: tuple[ReplicaSet, ...] = ()
    pods: tuple[Pod, ...] = ()
    events: tuple[Event, ...] = ()
    """About the service's pods and ReplicaSets."""
    claims: tuple[Claim, ...] = ()
    secrets: tuple[Secret, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    """Writes that the API server refused in this pass."""
    foreign: tuple[str, ...] = ()
    """Objects (`Kind name`) that have a child's name and belong to somebody else."""
    missing_apis: tuple[str, ...] = ()
    capacity: Capacity = field(default_factory=Capacity)

    @property
    def generation(self) -> int:
        """Generation of the spec."""
        return plain.number(self.service, "metadata", "generation") or 0

    @property
    def current(self) -> ReplicaSet | None:
        """The ReplicaSet of the newest pod template, once its controller has made it."""
        if self.deployment is None or not self.deployment.is_seen:
            return None
        return next((one for one in self.replica_sets if one.revision == self.deployment.revision), None)

    @property
    def new_pods(self) -> tuple[Pod, ...]:
        """Pods of the newest template that are to stay."""
        uid = self.current.uid if self.current else None
        return tuple(pod for pod in self.pods if pod.replica_set == uid and not pod.leaving) if uid else ()

    @property
    def old_pods(self) -> tuple[Pod, ...]:
        """Pods of older templates, leaving ones too; all of them until the newest template's ReplicaSet is there."""
        uid = self.current.uid if self.current else None
        return tuple(pod for pod in self.pods if uid is None or pod.replica_set != uid)


def spec(tree: Plain) -> tuple[EmbeddingService | None, tuple[str, ...]]:
    """The object as the contract has it; None, and why, when this operator cannot read it (a newer one can)."""
    try:
        return EmbeddingService.model_validate(tree), ()
    except ValidationError as error:
        return None, tuple(str(problem) for problem in problems(error))


def claim(tree: Plain) -> Claim:
    """A PersistentVolumeClaim as the API server gives it."""
    modes = plain.at(tree, "status", "accessModes") or plain.at(tree, "spec", "accessModes")
    given = tuple(mode for mode in modes if isinstance(mode, str)) if isinstance(modes, list) else ()
    return Claim(plain.text(tree, "metadata", "name") or "", given, plain.text(tree, "status", "phase") or "Unknown")


def secret(name: str, tree: Plain | None) -> Secret:
    """A Secret as the API server gives it; None when there is none of that name."""
    data: Mapping[str, Any] = plain.mapping(tree, "data")
    filled = frozenset(key for key, value in data.items() if value)
    return Secret(name, tree is not None, filled, frozenset(data) - filled)
