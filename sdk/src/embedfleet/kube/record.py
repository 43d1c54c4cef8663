"""An EmbeddingService as the API server hands it out, read tolerantly: it may be of a newer operator."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from embedfleet.api.service import API_VERSION, KIND

HTTP_PORT, PORT_NAME = 8080, "http"
"""The public port of every service, its number and its name."""
SERVICE_LABEL = "embedfleet.dev/service"
"""The label of a service's pods."""
_INSIDE = ".svc"

Tree = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Condition:
    """One of the operator's statements."""

    type: str
    status: str
    reason: str = ""
    message: str = ""

    def __str__(self) -> str:
        words = f"{self.type} is {self.status}"
        return f"{words}: {self.reason}: {self.message}" if self.reason else words


@dataclass(frozen=True, slots=True)
class ClusterRecord:
    """What the cluster says of one service. `seen` False: it may not be read, and only its name is known."""

    service: str
    namespace: str
    models: tuple[str, ...] = ()
    url: str | None = None
    tls: bool = False
    wanted: int = 1
    ready: int = 0
    pods: int = 0
    conditions: tuple[Condition, ...] = ()
    model_states: Mapping[str, str] = field(default_factory=dict)
    is_current: bool = True
    """Whether the status is about the newest spec."""
    seen: bool = True

    @property
    def public_url(self) -> str | None:
        """Its address outside the cluster, where it has one."""
        host = (self.url or "").partition("://")[2].partition("/")[0].partition(":")[0]
        return self.url if host and not host.endswith(_INSIDE) else None

    @property
    def inside_url(self) -> str:
        """Its address in the cluster."""
        return f"{'https' if self.tls else 'http'}://{self.service}.{self.namespace}{_INSIDE}:{HTTP_PORT}"

    @property
    def state(self) -> str:
        """Ready, NotReady with the reason, or Unknown while no operator has said anything."""
        ready = self.condition("Ready")
        if ready is None:
            return "Unknown"
        return "Ready" if ready.status == "True" else ready.reason or "NotReady"

    @property
    def is_ready(self) -> bool:
        """Whether all of the newest spec is served."""
        ready = self.condition("Ready")
        return self.is_current and ready is not None and ready.status == "True"

    @property
    def trouble(self) -> str:
        """Why it takes no requests, in the operator's words; empty when it takes some or nothing is known."""
        if not self.seen or self.ready:
            return ""
        found = self.condition("Ready")
        if found is None:
            return "no operator has looked at it yet: is embedfleet-operator running?"
        return f"no pod is ready ({found})"

    def condition(self, kind: str) -> Condition | None:
        """The condition of that type."""
        return next((one for one in self.conditions if one.type == kind), None)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.service}"


def read(tree: Tree) -> ClusterRecord:
    """What can be told of the object `tree`; what it lacks is as if it had not been said."""
    metadata, spec, status = (_mapping(tree, key) for key in ("metadata", "spec", "status"))
    models = [str(one["name"]) for one in _entries(spec, "models") if "name" in one]
    told = _entries(status, "models")
    return ClusterRecord(
        str(metadata.get("name", "")),
        str(metadata.get("namespace", "")),
        tuple(models),
        status.get("url") or None,
        bool(spec.get("tls")),
        0 if spec.get("suspend") else int(spec.get("replicas", 1)),
        int(status.get("readyReplicas", 0)),
        int(status.get("replicas", 0)),
        tuple(_condition(one) for one in _entries(status, "conditions")),
        {str(one["name"]): str(one.get("state", "Unknown")) for one in told if "name" in one},
        status.get("observedGeneration") == metadata.get("generation"),
    )


def typed(tree: Tree) -> dict[str, Any]:
    """`tree` with what entries of a list lack."""
    return {"apiVersion": API_VERSION, "kind": KIND, **tree}


def _condition(tree: Tree) -> Condition:
    return Condition(*(str(tree.get(key, "")) for key in ("type", "status", "reason", "message")))


def _mapping(tree: Tree, key: str) -> Tree:
    found = tree.get(key)
    return found if isinstance(found, Mapping) else {}


def _entries(tree: Tree, key: str) -> list[Tree]:
    found = tree.get(key)
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []
