"""What is done to an EmbeddingService in a cluster, and read beside it: events, pods, logs."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from embedfleet.api import EmbeddingService
from embedfleet.errors import BadInput, Forbidden, ObjectMissing, ServiceNotFound
from embedfleet.kube import access
from embedfleet.kube.access import Need
from embedfleet.kube.api import APPLY, MERGE_PATCH, ApiServer, Tree, services_path
from embedfleet.kube.record import SERVICE_LABEL, ClusterRecord, read, typed

MANAGER = "embedfleet-sdk"
"""Our field manager: what is applied here is ours, and nothing that others have set is taken from them."""
_MANAGER = {"fieldManager": MANAGER, "fieldValidation": "Strict"}


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was said about a service, its pods or its other objects."""

    when: str
    type: str
    """Normal or Warning."""
    about: str
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.when}  {self.type:7}  {self.about}  {self.reason}: {self.message}"


async def get(api: ApiServer, namespace: str, name: str) -> Tree:
    """The object as it is. Raises `ServiceNotFound`."""
    try:
        return typed(await api.get(services_path(namespace, name)))
    except ObjectMissing as error:
        raise _missing(api, namespace, name) from error
    except Forbidden as error:
        raise _ruled(error, access.SEE) from error


async def record(api: ApiServer, namespace: str, name: str) -> ClusterRecord:
    """What the cluster says of it."""
    return read(await get(api, namespace, name))


async def apply(api: ApiServer, namespace: str, service: EmbeddingService, *, force: bool = False) -> ClusterRecord:
    """Make the fields that `service` sets so (server-side apply); others stay as they are.

    `force` takes fields from another manager; without it such a conflict is `ClusterRefused`.
    """
    name, body = service.metadata.name, applied(service, namespace)
    query = {**_MANAGER, "force": "true"} if force else _MANAGER
    try:
        return read(await api.ask("PATCH", services_path(namespace, name), query, body, APPLY))
    except Forbidden as error:
        raise _ruled(error, (Need("patch", *_SERVICES), Need("create", *_SERVICES))) from error


def applied(service: EmbeddingService, namespace: str) -> Tree:
    """What is sent: the fields that were set, and of the metadata what is a user's to say."""
    given = service.model_dump(by_alias=True, exclude_unset=True, exclude_none=True)
    metadata = given.get("metadata") or {}
    own = {key: metadata[key] for key in ("labels", "annotations") if metadata.get(key)}
    own |= {"name": service.metadata.name, "namespace": namespace}
    return typed({"metadata": own, "spec": given.get("spec") or {}})


async def scale(api: ApiServer, namespace: str, name: str, replicas: int) -> None:
    """Set the number of pods, by the subresource `scale`."""
    if replicas < 0:
        raise BadInput(f"replicas is {replicas}: must be at least 0")
    need = Need("patch", _SERVICES[0], "scale", _SERVICES[2])
    await _patch(api, namespace, name, {"spec": {"replicas": replicas}}, need, "scale")


async def change(api: ApiServer, namespace: str, name: str, spec: Mapping[str, Any]) -> None:
    """Merge `spec` into the object's."""
    await _patch(api, namespace, name, {"spec": dict(spec)}, Need("patch", *_SERVICES))


async def change_model(api: ApiServer, namespace: str, name: str, model: str, batching: Mapping[str, Any]) -> None:
    """Merge `batching` into that of one model. Raises `ClusterRefused` (409) when the object changes meanwhile."""
    tree = await get(api, namespace, name)
    models = tree["spec"]["models"]
    if model not in [one["name"] for one in models]:
        raise BadInput(f"{namespace}/{name} has no model {model!r}; its models: {_listed(models)}")
    changed = [one if one["name"] != model else one | {"batching": _merged(one, batching)} for one in models]
    body = {"metadata": {"resourceVersion": tree["metadata"]["resourceVersion"]}, "spec": {"models": changed}}
    await _patch(api, namespace, name, body, Need("patch", *_SERVICES))


async def delete(api: ApiServer, namespace: str, name: str) -> None:
    """Delete it; what belongs to it goes with it. Raises `ServiceNotFound`."""
    try:
        await api.ask("DELETE", services_path(namespace, name))
    except ObjectMissing as error:
        raise _missing(api, namespace, name) from error
    except Forbidden as error:
        raise _ruled(error, (Need("delete", *_SERVICES),)) from error


async def events(api: ApiServer, namespace: str, name: str) -> list[Event]:
    """What was said about it and what belongs to it, oldest first."""
    try:
        found = await api.get(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")
    except Forbidden as error:
        raise _ruled(error, (Need("list", "events", group="events.k8s.io"),)) from error
    return events_about(found.get("items") or (), name)


def events_about(items: Any, name: str) -> list[Event]:
    """Those of `items` that are about the service `name` or an object named after it."""
    told = [_event(one) for one in items if _is_about(one.get("regarding") or {}, name)]
    return sorted(told, key=lambda event: event.when)


async def pods(api: ApiServer, namespace: str, name: str) -> list[str]:
    """Names of its pods."""
    try:
        found = await api.get(f"/api/v1/namespaces/{namespace}/pods", labelSelector=f"{SERVICE_LABEL}={name}")
    except Forbidden as error:
        raise _ruled(error, (Need("list", "pods"),)) from error
    return [str(one["metadata"]["name"]) for one in found.get("items") or ()]


async def log(
    api: ApiServer, namespace: str, pod: str, *, lines: int, previous: bool = False, follow: bool = False
) -> AsyncGenerator[str, None]:
    """The last `lines` of what the server in a pod wrote, and with `follow` what it writes from now on."""
    query = {"container": "server", "tailLines": str(lines)}
    query |= {"previous": "true"} if previous else {}
    query |= {"follow": "true"} if follow else {}
    try:
        async with aclosing(api.lines(f"/api/v1/namespaces/{namespace}/pods/{pod}/log", **query)) as found:
            async for line in found:
                yield line.decode(errors="replace").rstrip("\n")
    except Forbidden as error:
        raise _ruled(error, (Need("get", "pods", "log"),)) from error


_SERVICES = (access.SEE[0].resource, "", access.SEE[0].group)


async def _patch(api: ApiServer, namespace: str, name: str, body: Mapping[str, Any], need: Need, sub: str = "") -> None:
    try:
        await api.ask("PATCH", services_path(namespace, name, sub), _MANAGER, body, MERGE_PATCH)
    except ObjectMissing as error:
        raise _missing(api, namespace, name) from error
    except Forbidden as error:
        raise _ruled(error, (need,)) from error


def _merged(model: Mapping[str, Any], batching: Mapping[str, Any]) -> dict[str, Any]:
    whole = {**(model.get("batching") or {}), **batching}
    return {key: value for key, value in whole.items() if value is not None}


def _listed(models: Any) -> str:
    return ", ".join(str(one["name"]) for one in models)


def _missing(api: ApiServer, namespace: str, name: str) -> ServiceNotFound:
    where = f"namespace {namespace!r} of {api.where}"
    return ServiceNotFound(f"no service {name!r} in {where}", [where])


def _ruled(error: Forbidden, needs: tuple[Need, ...]) -> Forbidden:
    """`error` with the rule that would allow it."""
    rule = access.rules(needs)
    return Forbidden(f"{error}\na Role needs this rule:\n{rule}", rule)


def _event(tree: Mapping[str, Any]) -> Event:
    about, series = tree.get("regarding") or {}, tree.get("series") or {}
    times = (series.get("lastObservedTime"), tree.get("deprecatedLastTimestamp"), tree.get("eventTime"))
    when = next((str(time) for time in times if time), str((tree.get("metadata") or {}).get("creationTimestamp", "")))
    return Event(
        when,
        str(tree.get("type", "")),
        f"{about.get('kind', '')}/{about.get('name', '')}",
        str(tree.get("reason", "")),
        str(tree.get("note", "")),
    )


def _is_about(about: Mapping[str, Any], name: str) -> bool:
    own = about.get("kind") == "EmbeddingService" and about.get("name") == name
    return own or (about.get("kind") in _CHILDREN and _stem(str(about.get("name", "")), str(about.get("kind"))) == name)


_CHILDREN = {"Deployment": 0, "ReplicaSet": 1, "Pod": 2}
"""Kinds that are named after the service, and how many words Kubernetes appends."""


def _stem(name: str, kind: str) -> str:
    words = _CHILDREN[kind]
    return name.rsplit("-", words)[0] if words else name
