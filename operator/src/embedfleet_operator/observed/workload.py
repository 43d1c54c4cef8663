"""The Deployment and its ReplicaSets."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from embedfleet_operator import names
from embedfleet_operator.observed import plain
from embedfleet_operator.observed.plain import Plain

Way = Literal["Surge", "DrainFirst"]
"""How new pods take the place of old ones: one more first, or one fewer first."""
_REVISION = "deployment.kubernetes.io/revision"


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition of a Deployment, a ReplicaSet or a pod."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    since: datetime | None = None
    """When `status` last changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A Deployment and what its controller says of it."""

    uid: str
    generation: int
    observed_generation: int = 0
    """Below `generation`, the controller has not yet seen the newest spec, and the counts are of an older one."""
    wanted: int = 1
    replicas: int = 0
    updated: int = 0
    ready: int = 0
    available: int = 0
    way: Way = "Surge"
    revision: str | None = None
    rendered: str | None = None
    """Digest of what the operator applied last."""

    @property
    def is_seen(self) -> bool:
        """The controller has seen the newest spec."""
        return self.observed_generation >= self.generation

    @property
    def is_rolled_out(self) -> bool:
        """Every pod is of the newest template and ready, and no other is left."""
        return self.is_seen and self.replicas == self.updated == self.ready == self.wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSet:
    """The pods of one pod template."""

    uid: str
    name: str
    revision: str | None = None
    replicas: int = 0
    wanted: int = 0
    config_maps: frozenset[str] = frozenset()
    """Names of the ConfigMaps that its pods mount."""
    conditions: tuple[Condition, ...] = ()


def conditions(tree: Plain) -> tuple[Condition, ...]:
    """The conditions in an object's status."""
    return tuple(_condition(entry) for entry in plain.entries(tree, "status", "conditions"))


def deployment(tree: Plain) -> Deployment:
    """A Deployment as the API server gives it."""
    return Deployment(
        uid=plain.text(tree, "metadata", "uid") or "",
        generation=plain.number(tree, "metadata", "generation") or 0,
        observed_generation=_count(tree, "observedGeneration"),
        wanted=_or(plain.number(tree, "spec", "replicas"), 1),
        replicas=_count(tree, "replicas"),
        updated=_count(tree, "updatedReplicas"),
        ready=_count(tree, "readyReplicas"),
        available=_count(tree, "availableReplicas"),
        way=_way(tree),
        revision=plain.text(tree, "metadata", "annotations", _REVISION),
        rendered=plain.text(tree, "metadata", "annotations", names.RENDERED),
    )


def replica_set(tree: Plain) -> ReplicaSet:
    """A ReplicaSet as the API server gives it."""
    return ReplicaSet(
        uid=plain.text(tree, "metadata", "uid") or "",
        name=plain.text(tree, "metadata", "name") or "",
        revision=plain.text(tree, "metadata", "annotations", _REVISION),
        replicas=_count(tree, "replicas"),
        wanted=_or(plain.number(tree, "spec", "replicas"), 1),
        config_maps=frozenset(_config_maps(plain.mapping(tree, "spec", "template", "spec"))),
        conditions=conditions(tree),
    )


def _condition(entry: Plain) -> Condition:
    kind, status, reason, message = (plain.text(entry, key) or "" for key in ("type", "status", "reason", "message"))
    return Condition(kind, status, reason, message, plain.time(entry, "lastTransitionTime"))


def _count(tree: Plain, field: str) -> int:
    return plain.number(tree, "status", field) or 0


def _or(given: int | None, default: int) -> int:
    return default if given is None else given


def _way(tree: Plain) -> Way:
    surge = plain.at(tree, "spec", "strategy", "rollingUpdate", "maxSurge")
    return "DrainFirst" if surge in (0, "0", "0%") else "Surge"


def _config_maps(pod_spec: Plain) -> list[str]:
    volumes = plain.entries(pod_spec, "volumes")
    projected = [source for volume in volumes for source in plain.entries(volume, "projected", "sources")]
    found = [plain.text(source, "configMap", "name") for source in [*volumes, *projected]]
    return [name for name in found if name is not None]
