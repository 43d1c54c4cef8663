"""Finding a service in a cluster: the context's namespace first, then all that may be seen."""

from collections.abc import Sequence
from dataclasses import dataclass

from embedfleet.api.service import API_VERSION, GROUP, PLURAL, VERSION
from embedfleet.errors import ClusterRefused, Forbidden, ObjectMissing, ServiceNotFound
from embedfleet.kube import access, names
from embedfleet.kube.api import ApiServer, Tree, services_path
from embedfleet.kube.record import ClusterRecord, read, typed


@dataclass(frozen=True, slots=True)
class Scope:
    """Where to look: a namespace, and whether it was asked for (then nowhere else is looked)."""

    namespace: str
    is_given: bool


def scope(given: str | None, of_environment: str | None, of_context: str) -> Scope:
    """The namespace to look in: the one given, EMBEDFLEET_NAMESPACE, the context's."""
    asked_for = given or of_environment
    return Scope(asked_for or of_context, asked_for is not None)


async def find(api: ApiServer, name: str | None, within: Scope) -> names.Match:
    """The service that `name` stands for.

    A service that may not be seen is taken to be there under its name: it may be reached all the same.
    Raises `ServiceNotFound`, `AmbiguousName`, `ClusterRefused` for a cluster that serves another version.
    """
    where = f"namespace {within.namespace!r} of {api.where}"
    here = await records(api, within.namespace)
    match = names.choose(name, here or (), where)
    if match is not None:
        return match
    everywhere = None if within.is_given else await records(api, None)
    found = names.choose(name, everywhere, f"all namespaces of {api.where}") if everywhere and name else None
    if found is not None:
        return found
    if here is None and name is not None:
        return ClusterRecord(name, within.namespace, seen=False), None
    raise _nothing(name, where, here or (), everywhere, within)


async def records(api: ApiServer, namespace: str | None) -> list[ClusterRecord] | None:
    """The services of a namespace, of all when None; None: they may not be listed."""
    found = await trees(api, namespace)
    return None if found is None else [read(tree) for tree in found]


async def trees(api: ApiServer, namespace: str | None) -> list[Tree] | None:
    """The same as the objects that they are."""
    try:
        found = await api.get(services_path(namespace))
    except Forbidden:
        return None
    except ObjectMissing as missing:
        raise await _not_served(api) from missing
    return [typed(tree) for tree in found.get("items") or ()]


async def _not_served(api: ApiServer) -> ClusterRefused:
    """Why the API server knows no EmbeddingServices: no CRD, or one of other versions."""
    try:
        group = await api.get(f"/apis/{GROUP}")
    except (ObjectMissing, Forbidden):
        text = f"{api.where} has no {PLURAL}.{GROUP}: embedfleet's CustomResourceDefinition is not installed there"
        return ClusterRefused(f"{text}, or this is the wrong context", 404)
    versions = ", ".join(str(one.get("groupVersion")) for one in group.get("versions") or ()) or "no version"
    text = f"{api.where} serves {versions}, and this SDK speaks {API_VERSION}"
    return ClusterRefused(f"{text}: install the embedfleet of the cluster's version, or have it serve {VERSION}", 404)


def _nothing(
    name: str | None,
    where: str,
    here: Sequence[ClusterRecord],
    everywhere: Sequence[ClusterRecord] | None,
    within: Scope,
) -> ServiceNotFound:
    what = "no service" if name is None else f"no service or model {name!r}"
    looked, found = [where], everywhere or here
    if everywhere is not None:
        looked.append("all other namespaces")
    there = f"there: {names.listed(found)}" if found else "none is there"
    text = f"{what} in {' and '.join(looked)}; {there}"
    if everywhere is None and not within.is_given:
        text += f"; other namespaces may not be looked into, so name one by namespace= (or let list:\n{access.SEE_ALL})"
    return ServiceNotFound(text, looked, [str(record) for record in found])
