"""What the operator may do: one table.

The roles in the chart are made of it, and `cluster` refuses a request that is not in it, so it can neither lack a verb
nor keep one that nothing uses (the tests compare it with the API server's audit log).
"""

from dataclasses import dataclass
from typing import Any, Literal

from embedfleet_operator import names, resources
from embedfleet_operator.resources import Resource

Verb = Literal["create", "delete", "get", "list", "patch", "update", "watch"]
Where = Literal["services", "lease", "cluster"]
"""services: in each namespace that has EmbeddingServices. lease: in the Lease's. cluster: of the whole cluster."""


@dataclass(frozen=True, slots=True)
class Permission:
    """Verbs on one type of object."""

    resource: Resource
    verbs: tuple[Verb, ...]
    why: str
    sub: str | None = None
    where: Where = "services"

    @property
    def name(self) -> str:
        """The resource as a role names it."""
        return f"{self.resource.plural}/{self.sub}" if self.sub else self.resource.plural


_CHILD: tuple[Verb, ...] = ("get", "list", "watch", "create", "patch", "delete")

TABLE = (
    Permission(resources.SERVICES, ("get", "list", "watch"), "what is asked for"),
    Permission(resources.SERVICES, ("patch",), "what is told", sub="status"),
    Permission(
        resources.SERVICES,
        ("update",),
        "owner references that block; asked by the admission plug-in OwnerReferencesPermissionEnforcement alone",
        sub="finalizers",
    ),
    *(Permission(resource, _CHILD, "a child") for resource in (*resources.CHILDREN, *resources.OPTIONAL)),
    Permission(resources.REPLICA_SETS, ("list", "watch"), "how far a rollout is"),
    Permission(resources.PODS, ("list", "watch", "patch"), "their state; an annotation after a batching change"),
    Permission(resources.EVENTS, ("list", "create"), "why a pod does not start; what has become of a service"),
    Permission(resources.SECRETS, ("get",), "whether one that a spec names has its keys; by name only"),
    Permission(resources.CLAIMS, ("get",), "whether one that a spec names is there, and mounted by one node only"),
    Permission(resources.LEASES, ("get", "create", "update"), "which replica leads", where="lease"),
    Permission(resources.NODES, ("list",), "whether any node has as many GPUs as a pod asks for", where="cluster"),
    Permission(resources.ENDPOINT_SLICES, ("get",), "the API server's addresses, for policies", where="cluster"),
)

_ALLOWED = {(permission.resource, permission.sub, verb) for permission in TABLE for verb in permission.verbs}


def allows(verb: Verb, resource: Resource, sub: str | None = None) -> bool:
    """Whether the table has it."""
    return (resource, sub, verb) in _ALLOWED


def rules(*where: Where) -> list[dict[str, Any]]:
    """The rules of a role, for what is done in these places."""
    return [
        {"apiGroups": [one.resource.group], "resources": [one.name], "verbs": list(one.verbs)}
        for one in TABLE
        if one.where in where
    ]


def roles() -> list[dict[str, Any]]:
    """The roles for a whole cluster: the operator's, its Lease's, and those that let people view and edit services."""
    edit: list[Verb] = ["create", "delete", "get", "list", "patch", "update", "watch"]
    return [
        _role("ClusterRole", names.MANAGER, rules("services", "cluster")),
        _role("ClusterRole", f"{names.MANAGER}-namespaced", rules("services")),
        _role("ClusterRole", f"{names.MANAGER}-lease", rules("lease")),
        _aggregated("view", ["get", "list", "watch"], ["embeddingservices", "embeddingservices/status"]),
        _aggregated("edit", edit, ["embeddingservices", "embeddingservices/scale"]),
    ]


def _role(kind: str, name: str, given: list[dict[str, Any]]) -> dict[str, Any]:
    made = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name}}
    return {**made, "rules": given}


def _aggregated(to: str, verbs: list[Any], plurals: list[str]) -> dict[str, Any]:
    """A role that becomes part of the cluster's own role `to`; what may be edited may be administered too."""
    targets = [to, "admin"] if to == "edit" else [to]
    labels = {f"rbac.authorization.k8s.io/aggregate-to-{target}": "true" for target in targets}
    rule = {"apiGroups": [resources.SERVICES.group], "resources": plurals, "verbs": verbs}
    made = _role("ClusterRole", f"embedfleet-{to}", [rule])
    return made | {"metadata": {**made["metadata"], "labels": labels}}
