"""Operators with the generated role, whole or without one of its verbs, and what makes each verb needed."""

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from embedfleet_operator import permissions, resources
from embedfleet_operator.permissions import Verb
from embedfleet_operator.resources import Resource
from tests.cluster.cluster import Cluster
from tests.support.operators import Place, manifest_of, until

Plain = dict[str, Any]
RICH = {
    "auth": {"apiKeysSecretRef": {"name": "keys"}},
    "models": [{"name": "m", "source": {"volume": {"claimName": "weights", "path": "m"}}}],
    "network": {"ingress": {"host": "e.example.com"}},
    "monitoring": {"serviceMonitor": {"enabled": True}},
    "replicas": 1,
}
"""A spec that asks for every child and names what others make."""
MONITORS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "servicemonitors.monitoring.coreos.com"},
    "spec": {
        "group": "monitoring.coreos.com",
        "scope": "Namespaced",
        "names": {"kind": "ServiceMonitor", "listKind": "ServiceMonitorList", "plural": "servicemonitors"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
"""The Prometheus operator's type, as far as it matters here."""


@dataclass(frozen=True, slots=True)
class Lack:
    """One verb that a role does not have; `service` and `user` are of its own."""

    resource: Resource
    sub: str | None
    verb: Verb
    number: int

    @property
    def service(self) -> str:
        """The service on which it shows."""
        return f"without{self.number}"

    @property
    def user(self) -> str:
        """Who lacks it."""
        return f"without-{self.number}"

    @property
    def name(self) -> str:
        """The resource as a role names it."""
        return f"{self.resource.plural}/{self.sub}" if self.sub else self.resource.plural

    def __str__(self) -> str:
        return f"{self.verb} {self.name}"


def lacks() -> list[Lack]:
    """One for each verb of the operator's roles."""
    pairs = [(one.resource, one.sub, verb) for one in permissions.TABLE for verb in one.verbs]
    return [Lack(*pair, number) for number, pair in enumerate(pairs)]


def grant(cluster: Cluster, given: list[Lack]) -> None:
    """Every user of `given` gets all rights of the operator but the one, everywhere."""
    items = [made for lack in given for made in _role_and_binding(lack)]
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))


def _role_and_binding(lack: Lack) -> Iterator[Plain]:
    api, role = "rbac.authorization.k8s.io/v1", {"kind": "ClusterRole", "name": lack.user}
    rules = list(_without(permissions.rules("services", "lease", "cluster"), lack))
    yield {"apiVersion": api, "kind": "ClusterRole", "metadata": {"name": lack.user}, "rules": rules}
    subject = {"kind": "User", "name": lack.user, "apiGroup": "rbac.authorization.k8s.io"}
    metadata = {"name": lack.user}
    reference = {**role, "apiGroup": "rbac.authorization.k8s.io"}
    yield {
        "apiVersion": api,
        "kind": "ClusterRoleBinding",
        "metadata": metadata,
        "roleRef": reference,
        "subjects": [subject],
    }


def _without(rules: list[Plain], lack: Lack) -> Iterator[Plain]:
    for rule in rules:
        is_meant = rule["resources"] == [lack.name] and rule["apiGroups"] == [lack.resource.group]
        verbs = [verb for verb in rule["verbs"] if not is_meant or verb != lack.verb]
        if verbs:
            yield {**rule, "verbs": verbs}


def manifests(given: list[Lack]) -> str:
    """The services of `given`, to be applied together."""
    items = [manifest_of(lack.service, **RICH) for lack in given]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def plant(place: Place, resource: Resource) -> None:
    """A child of this type that the spec of `place` no longer asks for, as an older operator might have made it."""
    one = next(found for found in place.all(f"{resource.plural}.{resource.group}".rstrip(".")))
    made = copy.deepcopy({key: value for key, value in one.items() if key != "status"})
    kept = {key: one["metadata"][key] for key in ("namespace", "labels", "ownerReferences")}
    made["metadata"] = {**kept, "name": f"{place.name}-former"}
    for field in ("clusterIP", "clusterIPs"):
        made.get("spec", {}).pop(field, None)
    if "replicas" in made.get("spec", {}):
        made["spec"]["replicas"] = 0
    place.kubectl("create", "-f", "-", stdin=json.dumps(made))


def roll(place: Place) -> None:
    """Make the pods ask for GPUs, of which there are none: a new pod waits beside the old one."""
    place.apply(**RICH, gpu={"count": 1})
    until(lambda: len(place.pods()) == 2)
    until(lambda: all(one["status"].get("conditions") for one in place.pods()))


def start_container(place: Place, pod: str) -> None:
    """Say of a pod that its container is being made, as a kubelet does before it mounts volumes."""
    state = {"name": "server", "ready": False, "restartCount": 0, "image": "i", "imageID": "", "lastState": {}}
    waiting = {**state, "state": {"waiting": {"reason": "ContainerCreating"}}}
    place.patch("pod", pod, {"status": {"containerStatuses": [waiting]}}, "--subresource=status")


def is_rolling(lack: Lack) -> bool:
    """Whether it shows while pods with GPUs find no room in a rollout."""
    return lack.resource is resources.NODES


def is_planted(lack: Lack) -> bool:
    """Whether it shows on a child that is left over."""
    return lack.verb == "delete"


def needs_pods(lack: Lack) -> bool:
    """Whether it shows on a service that has its children and pods already."""
    late = {(resources.PODS, "patch"), (resources.EVENTS, "list"), (resources.NODES, "list")}
    return is_planted(lack) or (lack.resource, lack.verb) in late


def words(lack: Lack, given: Mapping[str, str]) -> str:
    """How the API server names what is missing."""
    return given.get(str(lack), f'cannot {lack.verb} resource "{lack.name}"')
