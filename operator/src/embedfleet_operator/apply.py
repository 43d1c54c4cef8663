"""Making the cluster's objects what was rendered: writes only what differs, and only what belongs to the service."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from embedfleet_operator import equality, names, resources, rollout
from embedfleet_operator.cluster import Cluster
from embedfleet_operator.errors import Refused
from embedfleet_operator.observe import Seen
from embedfleet_operator.observed import Refusal, plain
from embedfleet_operator.render import Object

Plain = dict[str, Any]
FOR_A_WHILE = (408, 409, 429, 500, 502, 503, 504)
"""Answers that a later attempt may not get."""
_CONFLICT = 409
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Repair:
    """A child that somebody had changed, and that is again as it was rendered."""

    kind: str
    name: str
    uid: str
    by: str
    """Field manager that changed it last."""


@dataclass(slots=True)
class Applied:
    """What became of the rendered objects."""

    deployment: Plain | None = None
    """As it is now."""
    rendered: str | None = None
    """Digest of the Deployment as it is to be."""
    refusals: tuple[Refusal, ...] = ()
    foreign: tuple[str, ...] = ()
    leaving: tuple[str, ...] = field(default=())
    """Children that are being deleted: they are made anew once they are gone."""
    repaired: tuple[Repair, ...] = ()

    @property
    def is_partial(self) -> bool:
        """Some object is not what it is to be."""
        return bool(self.refusals or self.foreign or self.leaving)

    @property
    def must_retry(self) -> bool:
        """Time may cure it, and no event will say so."""
        return bool(self.leaving) or any(refusal.code in FOR_A_WHILE for refusal in self.refusals)


class Applier:
    """Writes through `cluster`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def apply(self, seen: Seen, wanted: Sequence[Object]) -> Applied:
        """Write each of `wanted` that is not there as it is to be.

        The Deployment waits for what comes before it: without its policy or settings no pod is to start.
        """
        made = Applied()
        for one in wanted:
            if one["kind"] == "Deployment":
                made.rendered = one["metadata"]["annotations"][names.RENDERED]
                if made.is_partial:
                    continue
            await self._apply_one(seen, one, made)
        return made

    async def remove_leftovers(self, seen: Seen, wanted: Sequence[Object]) -> None:
        """Delete the service's children that are no longer asked for and that no pod needs."""
        uid = seen.observed.service["metadata"]["uid"]
        owned = {key: tree for key, tree in seen.children.items() if _controller(tree).get("uid") == uid}
        live = [rollout.Child(kind, name, tree["metadata"]["uid"]) for (kind, name), tree in owned.items()]
        kept = [(one["kind"], one["metadata"]["name"]) for one in wanted]
        for child in rollout.leftovers(live, kept, seen.observed.replica_sets):
            await self._cluster.delete(owned[child.kind, child.name])

    async def _apply_one(self, seen: Seen, one: Object, made: Applied) -> None:
        kind, name = one["kind"], one["metadata"]["name"]
        live = seen.children.get((kind, name)) or await self._found(one)
        if live is not None and not _is_ours(live, seen.observed.service):
            made.foreign += (f"{kind} {name}",)
        elif live is not None and plain.text(live, "metadata", "deletionTimestamp"):
            made.leaving += (f"{kind} {name}",)
        elif live is not None and equality.unchanged(one, live):
            _keep(live, made)
        elif live is not None and _is_fixed(live, one):
            await self._cluster.delete(live)  # somebody made it anew with other content, which no write can change
            await self._write(one, None, made)
        else:
            await self._write(one, live, made)

    async def _found(self, one: Object) -> Plain | None:
        """An object of that name without the service's label."""
        resource, metadata = resources.CHILD_OF[one["kind"]], one["metadata"]
        return await self._cluster.find(resource, metadata["namespace"], metadata["name"])

    async def _write(self, one: Object, live: Plain | None, made: Applied) -> None:
        kind, name = one["kind"], one["metadata"]["name"]
        try:
            _keep(await self._cluster.apply(one, live), made)
            _log.info("applied %s %s/%s", kind, one["metadata"]["namespace"], name)
            made.repaired += _repair(one, live)
        except Refused as refusal:
            if refusal.code == _CONFLICT and live is not None:
                raise  # it has changed since it was read, and so has what could be told of it
            _log.warning("%s %s/%s is refused: %s", kind, one["metadata"]["namespace"], name, refusal)
            made.refusals += (Refusal(kind, name, refusal.code, refusal.message),)


def _keep(live: Plain, made: Applied) -> None:
    if live["kind"] == "Deployment":
        made.deployment = live


def _is_fixed(live: Mapping[str, Any], one: Object) -> bool:
    """Whether `live` is a ConfigMap whose content is another and cannot be changed."""
    return plain.flag(live, "immutable") and not equality.holds(one.get("data", {}), plain.mapping(live, "data"))


def _repair(one: Object, live: Mapping[str, Any] | None) -> tuple[Repair, ...]:
    """That `live`, which was made of the very rendering `one`, was changed by somebody else."""
    mine = one["metadata"]["annotations"][names.RENDERED]
    if live is None or plain.text(live, "metadata", "annotations", names.RENDERED) != mine:
        return ()
    written = [entry for entry in plain.entries(live, "metadata", "managedFields") if not entry.get("subresource")]
    others = [entry for entry in written if entry.get("manager") != names.MANAGER]
    last = max(others, key=lambda entry: plain.text(entry, "time") or "", default={})
    by = plain.text(last, "manager") or "somebody"
    return (Repair(one["kind"], one["metadata"]["name"], plain.text(live, "metadata", "uid") or "", by),)


def _is_ours(live: Mapping[str, Any], service: Mapping[str, Any]) -> bool:
    """Whether the service, or one of its name before it, made `live`; without an owner our label tells."""
    owner, name = _controller(live), plain.text(service, "metadata", "name")
    if not owner:
        return plain.text(live, "metadata", "labels", names.SERVICE_LABEL) == name
    return plain.text(owner, "kind") == plain.text(service, "kind") and plain.text(owner, "name") == name


def _controller(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    owners = plain.entries(tree, "metadata", "ownerReferences")
    return next((one for one in owners if plain.flag(one, "controller")), {})
