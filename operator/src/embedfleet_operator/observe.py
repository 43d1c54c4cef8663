"""Looking at a service: everything around it, read anew in each pass, so that no memory can be out of date."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from embedfleet.api import EmbeddingService
from embedfleet_operator import references, resources
from embedfleet_operator.cluster import Cluster
from embedfleet_operator.configuration import Configuration
from embedfleet_operator.errors import Refused
from embedfleet_operator.observed import (
    Capacity,
    Claim,
    Event,
    Observed,
    Secret,
    capacity,
    events,
    plain,
    pods,
    snapshot,
    workload,
)
from embedfleet_operator.pods import Pods
from embedfleet_operator.render import Site

Plain = dict[str, Any]
_STARTING = ("ContainerCreating", "PodInitializing")
_ASKED_ABOUT = 3
"""Pods whose events are read: those of one service that start badly do so for one reason."""
_FORBIDDEN = 403
_SITE_SECONDS = 10.0
"""For which what holds for the whole cluster is not read anew: its types and the API server's addresses."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """A service and what is around it, as values to judge and as objects to write over."""

    observed: Observed
    service: EmbeddingService | None
    problems: tuple[str, ...]
    children: dict[tuple[str, str], Plain]
    """Those that have the service's label, by kind and name."""
    site: Site


class Observer:
    """Reads through `cluster` and from pods."""

    def __init__(self, cluster: Cluster, pods: Pods, configuration: Configuration) -> None:
        self._cluster = cluster
        self._pods = pods
        self._configuration = configuration
        self._site_until = 0.0

    async def look(self, tree: Plain) -> Seen:
        """All that is around the EmbeddingService `tree`."""
        service, problems = snapshot.spec(tree)
        site = await self._site()
        known = [one for one in resources.OPTIONAL if f"{one.api_version}/{one.kind}" in site.apis]
        children, sets, found = await asyncio.gather(
            self._children(tree, known), self._of(tree, resources.REPLICA_SETS), self._of(tree, resources.PODS)
        )
        states = await self._pods.states(found)
        observed = Observed(
            service=tree,
            deployment=_deployment(children, tree),
            replica_sets=tuple(workload.replica_set(one) for one in sets),
            pods=tuple(pods.pod(one, states.get(one["metadata"]["uid"])) for one in found),
            events=await self._events(found),
            claims=await self._claims(service, tree),
            secrets=await self._secrets(service, tree),
        )
        return Seen(observed, service, problems, children, site)

    async def with_capacity(self, seen: Seen) -> Seen:
        """The same with whether any node is large enough; a namespaced operator may not look at nodes."""
        service = seen.service
        if service is None or self._configuration.namespaces or not service.spec.gpu.count:
            return seen
        gpu = service.spec.gpu
        fits = capacity.capacity(await self._cluster.nodes(), (), gpu.resource_name, gpu.count).ever_fits
        return replace(seen, observed=replace(seen.observed, capacity=Capacity(ever_fits=fits)))

    async def _site(self) -> Site:
        now = asyncio.get_running_loop().time()
        if now >= self._site_until:
            self._known_site, self._site_until = await self._read_site(), now + _SITE_SECONDS
        return self._known_site

    async def _read_site(self) -> Site:
        told = self._configuration
        knows = await asyncio.gather(*(self._cluster.knows(one) for one in resources.OPTIONAL))
        apis = [f"{one.api_version}/{one.kind}" for one, known in zip(resources.OPTIONAL, knows, strict=True) if known]
        addresses = told.api_server_cidrs
        if not addresses and not told.namespaces:
            addresses = await self._cluster.own_addresses()
        return Site(
            server_image=told.server_image,
            operator_namespace=told.operator_namespace,
            apis=frozenset(apis),
            api_server_cidrs=addresses,
        )

    async def _children(self, tree: Plain, known: list[resources.Resource]) -> dict[tuple[str, str], Plain]:
        found = await asyncio.gather(*(self._of(tree, one) for one in (*resources.CHILDREN, *known)))
        return {(one["kind"], one["metadata"]["name"]): one for part in found for one in part}

    async def _of(self, tree: Plain, resource: resources.Resource) -> list[Plain]:
        metadata = tree["metadata"]
        return await self._cluster.of_service(resource, metadata["namespace"], metadata["name"])

    async def _events(self, found: Sequence[Plain]) -> tuple[Event, ...]:
        """What is said of pods that start: the kubelet's trouble with volumes stands in no status."""
        waiting = [one for one in found if _starts(one)][:_ASKED_ABOUT]
        parts = [
            await self._cluster.events_about(one["metadata"]["namespace"], one["metadata"]["uid"]) for one in waiting
        ]
        return tuple(events.event(one) for part in parts for one in part)

    async def _claims(self, service: EmbeddingService | None, tree: Plain) -> tuple[Claim, ...]:
        named = sorted(references.claims(service)) if service else ()
        found = [await self._read(resources.CLAIMS, tree, name) for name in named]
        return tuple(snapshot.claim(one) for one in found if one)

    async def _secrets(self, service: EmbeddingService | None, tree: Plain) -> tuple[Secret, ...]:
        """What is known of the Secrets that the spec names; nothing of one that may not be read."""
        made = []
        for name in sorted(references.secrets(service)) if service else ():
            found = await self._read(resources.SECRETS, tree, name)
            if found != {}:
                made.append(snapshot.secret(name, found))
        return tuple(made)

    async def _read(self, resource: resources.Resource, tree: Plain, name: str) -> Plain | None:
        """An object that a spec names: None when there is none, empty when it may not be read."""
        try:
            return await self._cluster.find(resource, tree["metadata"]["namespace"], name)
        except Refused as refusal:
            if refusal.code != _FORBIDDEN:
                raise
            _log.warning("%s %s may not be read: %s", resource.kind, name, refusal.message)
            return {}


def _deployment(children: Mapping[tuple[str, str], Plain], tree: Plain) -> workload.Deployment | None:
    found = children.get(("Deployment", tree["metadata"]["name"]))
    return workload.deployment(found) if found else None


def _starts(pod: Plain) -> bool:
    statuses = [
        *plain.entries(pod, "status", "initContainerStatuses"),
        *plain.entries(pod, "status", "containerStatuses"),
    ]
    return any(plain.text(one, "state", "waiting", "reason") in _STARTING for one in statuses)
