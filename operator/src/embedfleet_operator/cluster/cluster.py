"""What the operator reads from the API server and writes to it, each by its own method."""

import ipaddress
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from embedfleet_operator import names, permissions, resources
from embedfleet_operator.cluster.transport import APPLY, JSON, MERGE_PATCH, Plain, Transport
from embedfleet_operator.errors import NotLeading, Refused, Unreachable
from embedfleet_operator.observed import plain
from embedfleet_operator.permissions import Verb
from embedfleet_operator.resources import Resource

_METHODS: dict[Verb, str] = {
    "create": "POST",
    "delete": "DELETE",
    "get": "GET",
    "list": "GET",
    "patch": "PATCH",
    "update": "PUT",
}
_READS = ("get", "list")
_GONE, _CONFLICT = 404, 409
_MANAGER = {"fieldManager": names.MANAGER}


class Cluster:
    """The API server, as far as `permissions` goes.

    Args:
        transport: the way there.
        may_write: whether this replica leads; a write is `NotLeading` else. Only the Lease is written regardless.
        asked: is told of each request's verb, resource and code: `2xx`, an error's status, or `none` without an answer.
    """

    def __init__(
        self,
        transport: Transport,
        may_write: Callable[[], bool] = lambda: True,
        asked: Callable[[str, str, str], None] = lambda *_: None,
    ) -> None:
        self._transport = transport
        self._may_write = may_write
        self._asked = asked

    async def service(self, namespace: str, name: str) -> Plain | None:
        """An EmbeddingService; None when it is not there."""
        return await self.find(resources.SERVICES, namespace, name)

    async def services(self, namespaces: tuple[str, ...] = ()) -> list[Plain]:
        """All EmbeddingServices, of these namespaces or of the cluster."""
        found = [await self._list(resources.SERVICES, namespace) for namespace in namespaces or (None,)]
        return [tree for part in found for tree in part]

    async def of_service(self, resource: Resource, namespace: str, service: str) -> list[Plain]:
        """The objects of a type that have the label of `service`."""
        selector = ",".join(f"{key}={value}" for key, value in names.selector(service).items())
        return await self._list(resource, namespace, labelSelector=selector)

    async def find(self, resource: Resource, namespace: str, name: str) -> Plain | None:
        """One object by name; None when it is not there."""
        try:
            return await self._ask("get", resource, resource.path(namespace, name))
        except Refused as refusal:
            if refusal.code == _GONE:
                return None
            raise

    async def events_about(self, namespace: str, uid: str) -> list[Plain]:
        """What has been said lately of the object `uid`."""
        return await self._list(resources.EVENTS, namespace, fieldSelector=f"regarding.uid={uid}")

    async def nodes(self) -> list[Plain]:
        """All nodes."""
        return await self._list(resources.NODES, None)

    async def knows(self, resource: Resource) -> bool:
        """Whether the API server has the type; every account may ask that."""
        try:
            found = await self._transport.request("GET", f"/apis/{resource.api_version}", {}, None, JSON)
        except Refused as refusal:
            if refusal.code == _GONE:
                return False
            raise
        return any(plain.text(one, "name") == resource.plural for one in plain.entries(found, "resources"))

    async def own_addresses(self) -> tuple[str, ...]:
        """The API server's addresses as CIDRs, from the endpoints of the Service `kubernetes`."""
        found = await self.find(resources.ENDPOINT_SLICES, "default", "kubernetes") or {}
        given = [address for one in plain.entries(found, "endpoints") for address in plain.at(one, "addresses") or []]
        return tuple(sorted(str(ipaddress.ip_network(address)) for address in given))

    async def apply(self, wanted: Plain, over: Mapping[str, Any] | None = None) -> Plain:
        """Make the fields in `wanted` so, and leave all others as they are; the object afterwards.

        Forced, since a rendered field is the operator's whoever has set it; other fields are not touched by that.
        Refused (409) when the object is no longer as `over`, which was read: what a leader of the past decided must
        not undo what one of the present did.
        """
        resource, metadata = resources.CHILD_OF[wanted["kind"]], wanted["metadata"]
        path = resource.path(metadata["namespace"], metadata["name"])
        exactly = {key: over["metadata"][key] for key in ("uid", "resourceVersion")} if over else {}
        body = {**wanted, "metadata": {**metadata, **exactly}}
        return await self._ask("patch", resource, path, {**_MANAGER, "force": "true"}, body, APPLY)

    async def delete(self, tree: Mapping[str, Any]) -> None:
        """Delete exactly what was read: neither an object made anew under the name nor one changed meanwhile."""
        resource, metadata = resources.CHILD_OF[tree["kind"]], tree["metadata"]
        exactly = {key: metadata[key] for key in ("uid", "resourceVersion")}
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": exactly,
            "propagationPolicy": "Background",
        }
        try:
            await self._ask("delete", resource, resource.path(metadata["namespace"], metadata["name"]), {}, body)
        except Refused as refusal:
            if refusal.code not in (_GONE, _CONFLICT):  # gone or changed: a later pass sees what is there
                raise

    async def tell(self, tree: Mapping[str, Any], status: Mapping[str, Any]) -> None:
        """Write the status of the EmbeddingService `tree`; refused (409) when that has changed since it was read.

        `status` is all of it: what it lacks is taken away, but for conditions that others have put there.
        """
        metadata = tree["metadata"]
        old = plain.mapping(tree, "status")
        types = {condition["type"] for condition in status["conditions"]}
        others = [one for one in plain.entries(old, "conditions") if one.get("type") not in types]
        gone = {key: None for key in old if key not in status}
        body = {
            "metadata": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]},
            "status": {**gone, **status, "conditions": [*status["conditions"], *others]},
        }
        path = resources.SERVICES.path(metadata["namespace"], metadata["name"], "status")
        await self._ask("patch", resources.SERVICES, path, _MANAGER, body, MERGE_PATCH, sub="status")

    async def touch(self, namespace: str, pod: str, change: Plain) -> None:
        """Merge `change` into a pod's metadata; one that has gone meanwhile needs none."""
        try:
            path = resources.PODS.path(namespace, pod)
            await self._ask("patch", resources.PODS, path, _MANAGER, change, MERGE_PATCH)
        except Refused as refusal:
            if refusal.code != _GONE:
                raise

    async def record(self, event: Plain) -> None:
        """Make an event; the same one again (after a crash) is no second one."""
        try:
            path = resources.EVENTS.path(event["metadata"]["namespace"])
            await self._ask("create", resources.EVENTS, path, _MANAGER, event)
        except Refused as refusal:
            if refusal.reason != "AlreadyExists":
                raise

    async def lease(self, namespace: str, name: str) -> Plain | None:
        """A Lease; None when it is not there."""
        return await self.find(resources.LEASES, namespace, name)

    async def create_lease(self, lease: Plain) -> Plain:
        """Make a Lease; refused (409) when another has done so."""
        path = resources.LEASES.path(lease["metadata"]["namespace"])
        return await self._ask("create", resources.LEASES, path, _MANAGER, lease)

    async def update_lease(self, lease: Plain) -> Plain:
        """Replace a Lease; refused (409) when it has changed since it was read."""
        path = resources.LEASES.path(lease["metadata"]["namespace"], lease["metadata"]["name"])
        return await self._ask("update", resources.LEASES, path, _MANAGER, lease)

    async def _list(self, resource: Resource, namespace: str | None, **query: str) -> list[Plain]:
        found = await self._ask("list", resource, resource.path(namespace), query)
        typed = {"apiVersion": resource.api_version, "kind": resource.kind}  # which entries of a list lack
        return [{**typed, **tree} for tree in plain.entries(found, "items")]

    async def _ask(
        self,
        verb: Verb,
        resource: Resource,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Plain | None = None,
        content: str = JSON,
        *,
        sub: str | None = None,
    ) -> Plain:
        assert permissions.allows(verb, resource, sub), f"This is a bug: {verb} {path} is not in the role"
        if verb not in _READS and resource != resources.LEASES and not self._may_write():
            raise NotLeading(f"{verb} {path}: this replica does not lead")
        try:
            found = await self._transport.request(_METHODS[verb], path, query or {}, body, content)
        except (Refused, Unreachable) as error:
            self._asked(verb, resource.plural, str(error.code) if isinstance(error, Refused) else "none")
            raise
        self._asked(verb, resource.plural, "2xx")
        return found


def event(about: Mapping[str, Any], name: str, identity: str, told: Mapping[str, str], now: datetime) -> Plain:
    """An event about the EmbeddingService `about`; `told` has its type, reason and note."""
    metadata = about["metadata"]
    regarding = {key: about[key] for key in ("apiVersion", "kind")}
    regarding |= {key: metadata[key] for key in ("namespace", "name", "uid", "resourceVersion")}
    return {
        "apiVersion": resources.EVENTS.api_version,
        "kind": resources.EVENTS.kind,
        "metadata": {"namespace": metadata["namespace"], "name": name},
        "eventTime": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": names.MANAGER,
        "reportingInstance": identity[:128],
        "action": "Reconcile",
        "regarding": regarding,
        **told,
    }
