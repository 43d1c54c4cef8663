"""The routes to a service, tried one after another; `connect` stops at the first that answers, `doctor` walks on.

Explicit address or EMBEDFLEET_URL → local service → DNS of the cluster → Ingress → service proxy → port-forward.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from embedfleet import environment, routes
from embedfleet.api.local import read_records
from embedfleet.client import AsyncService
from embedfleet.environment import Environment
from embedfleet.errors import (
    AmbiguousName,
    ClusterError,
    EmbedfleetError,
    Forbidden,
    NoCluster,
    RequestRejected,
    ServiceNotFound,
)
from embedfleet.explained import Reached, Tried
from embedfleet.kube import access, config, lookup
from embedfleet.kube.api import CONNECT_SECONDS, ApiServer
from embedfleet.kube.credentials import Credentials
from embedfleet.kube.record import ClusterRecord
from embedfleet.kube.ways import Forwarded, Proxied
from embedfleet.routes import Route
from embedfleet.way import Direct, Way, trusting

ADDRESS, LOCAL, DNS, CLUSTER = "address", "local service", "cluster DNS", "cluster"
INGRESS, PROXY, FORWARD = "ingress", "service proxy", "port-forward"

BY_API_SERVER = "forbidden"
"""Code of a refusal by the API server, where the service's own would have another."""

VERIFY_SECONDS = 3.0
"""A server answers `/v1/models` from memory; a network between costs well under this."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the caller of `connect` gave."""

    name: str | None = None
    namespace: str | None = None
    context: str | None = None
    url: str | None = None
    api_key: str | None = None
    model: str | None = None
    ca: Path | None = None

    @property
    def is_in_a_cluster(self) -> bool:
        """Whether a service of this machine cannot be meant."""
        return self.namespace is not None or self.context is not None


def walk(wanted: Wanted, around: Environment | None = None) -> AsyncGenerator[Tried, None]:
    """Each route, tried; nothing is asked of the API server before one that does without has failed.

    Raises `AmbiguousName` and `BadInput`: no other route would change those.
    """
    return Walk(wanted, around or environment.read()).all()


class Walk:
    """One walk over the routes."""

    def __init__(self, wanted: Wanted, around: Environment) -> None:
        self._wanted = wanted
        self._around = around
        self._key = wanted.api_key or around.api_key
        self._ca = wanted.ca or around.ca

    async def all(self) -> AsyncGenerator[Tried, None]:
        """See `walk`."""
        if self._ca is not None:
            trusting(self._ca)
        given = self._wanted.url or self._around.url
        if given:
            yield await self._address()
            return
        yield Tried(ADDRESS, "neither url= nor EMBEDFLEET_URL is set")
        yield await self._local()
        tried_dns = None
        if self._is_beside_the_service and self._wanted.name is not None:
            tried_dns = self._inside(self._wanted.name)
            yield await self._dns(tried_dns)
        elif not self._is_beside_the_service:
            yield Tried(DNS, "not in a pod of the cluster, or another context is meant")
        async with aclosing(self._by_the_cluster(tried_dns)) as more:
            async for tried in more:
                yield tried

    @property
    def _is_beside_the_service(self) -> bool:
        return self._around.pod is not None and self._wanted.context is None

    async def _address(self) -> Tried:
        route = routes.explicit(self._wanted.url, self._around)
        return await self._try(ADDRESS, Direct(route.url, self._key, self._ca), route)

    async def _local(self) -> Tried:
        if self._wanted.is_in_a_cluster:
            return Tried(LOCAL, "not looked for, since a namespace or a context was given")
        try:
            route = routes.local(self._wanted.name, self._around, read_records(self._around.records))
        except AmbiguousName:
            raise
        except ServiceNotFound as error:
            return Tried(LOCAL, str(error), error=error)
        return await self._try(LOCAL, Direct(route.url, self._key, self._ca), route)

    def _inside(self, name: str) -> ClusterRecord:
        """The service `name` as DNS would know it, without asking anybody; namespace `` is the pod's own."""
        assert self._around.pod is not None
        home = self._around.pod.account / "namespace"
        known = home.read_text().strip() if home.is_file() else ""
        return ClusterRecord(name, self._wanted.namespace or self._around.namespace or known, seen=False)

    async def _dns(self, record: ClusterRecord, model: str | None = None) -> Tried:
        """By its name in the cluster; where nobody said whether it wants TLS, with it once plain HTTP is hung up on."""
        tried = await self._try(DNS, self._direct(record, "http"), self._route(record, "http", model), record)
        if record.seen or tried.reached is not None or not _hung_up(tried):
            return tried
        secure = await self._try(DNS, self._direct(record, "https"), self._route(record, "https", model), record)
        return tried if _hung_up(secure) else secure

    def _direct(self, record: ClusterRecord, scheme: str) -> Direct:
        return Direct(_inside_url(record, scheme), self._key, self._ca)

    def _route(self, record: ClusterRecord, scheme: str, model: str | None) -> Route:
        return Route(_inside_url(record, scheme), "the cluster's DNS", model)

    async def _by_the_cluster(self, tried_dns: ClusterRecord | None) -> AsyncGenerator[Tried, None]:
        try:
            context = config.entered(self._wanted.context, self._around)
        except NoCluster as error:
            yield Tried(CLUSTER, str(error), _SET_UP, error)
            return
        credentials = Credentials(context)
        try:
            async with ApiServer(credentials, CONNECT_SECONDS) as api:
                scope = lookup.scope(self._wanted.namespace, self._around.namespace, context.namespace)
                record, model = await lookup.find(api, self._wanted.name, scope)
                async with aclosing(self._into(api, record, model, tried_dns)) as more:
                    async for tried in more:
                        yield tried
        except AmbiguousName:
            raise
        except (ClusterError, ServiceNotFound) as error:
            yield Tried(CLUSTER, str(error), "", error)

    async def _into(
        self, api: ApiServer, record: ClusterRecord, model: str | None, tried_dns: ClusterRecord | None
    ) -> AsyncGenerator[Tried, None]:
        """The routes to a service that is known by now."""
        if self._is_beside_the_service and str(tried_dns) != str(record):
            yield await self._dns(record, model)
        yield await self._ingress(api, record, model)
        yield await self._proxied(api, record, model)
        yield await self._forwarded(api, record, model)

    async def _ingress(self, api: ApiServer, record: ClusterRecord, model: str | None) -> Tried:
        url = record.public_url
        if url is None:
            return Tried(INGRESS, f"{record} has no address outside the cluster (spec.network.ingress)")
        way = Direct(url, self._key, self._ca)
        return await self._try(INGRESS, way, Route(url, INGRESS, model), record, api.credentials)

    async def _proxied(self, api: ApiServer, record: ClusterRecord, model: str | None) -> Tried:
        needs = access.proxying(record.service, tls=record.tls)
        if (refused := await self._lacking(PROXY, api, record, needs)) is not None:
            return refused
        way = Proxied(api.credentials, record, self._key)
        return await self._try(PROXY, way, Route(way.url, PROXY, model), record, api.credentials)

    async def _forwarded(self, api: ApiServer, record: ClusterRecord, model: str | None) -> Tried:
        if (refused := await self._lacking(FORWARD, api, record, access.FORWARD)) is not None:
            return refused
        way = Forwarded(api.credentials, record, self._key, self._ca)
        return await self._try(FORWARD, way, Route(way.url, FORWARD, model), record, api.credentials)

    async def _lacking(
        self, route: str, api: ApiServer, record: ClusterRecord, needs: tuple[access.Need, ...]
    ) -> Tried | None:
        lacking = await access.lacking(api, record.namespace, needs)
        if not lacking:
            return None
        listed = ", ".join(map(str, lacking))
        text = f"not allowed in namespace {record.namespace!r}: {listed}"
        rule = access.role(record.namespace, needs)
        return Tried(route, text, f"have somebody apply:\n{rule}", Forbidden(text, rule), met=True)

    async def _try(
        self,
        name: str,
        way: Way,
        route: Route,
        record: ClusterRecord | None = None,
        credentials: Credentials | None = None,
    ) -> Tried:
        """Ask the server at the end of `way` who it is."""
        wanted = self._wanted
        async with AsyncService(way.url, way=way) as probe:
            try:
                cards = await probe.verify(VERIFY_SECONDS)
                model = routes.choose_model(route, _meant(wanted.name, record), wanted.model or route.model, cards)
            except EmbedfleetError as error:
                remedy = _remedy(name, error, record)
                for note in filter(None, [f"The address came from {route.origin}.", remedy]):
                    error.add_note(note)
                return Tried(name, _reason(error, record), remedy, error, met=True)
        return Tried(name, route.url, reached=Reached(way, model, cards, record, credentials), met=True)


def _hung_up(tried: Tried) -> bool:
    """Whether the other side let the connection go without a word, as a server of TLS does with plain HTTP."""
    cause = tried.error.__cause__ if tried.error is not None else None
    return isinstance(cause, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError) and not isinstance(
        cause, aiohttp.ClientConnectorError
    )


_SET_UP = "give url=, run `embedfleet serve` here, or have a kubeconfig (KUBECONFIG, ~/.kube/config)"


def _inside_url(record: ClusterRecord, scheme: str) -> str:
    if record.seen:
        return record.inside_url
    host = f"{record.service}.{record.namespace}.svc" if record.namespace else record.service
    return f"{scheme}://{host}:8080"


def _meant(name: str | None, record: ClusterRecord | None) -> str | None:
    """The name that the server must know: in a cluster the service's own, once that is known."""
    return record.service if record is not None and name is not None and record.seen else name


def _reason(error: EmbedfleetError, record: ClusterRecord | None) -> str:
    trouble = record.trouble if record is not None else ""
    return f"{error}; {trouble}" if trouble else str(error)


def _remedy(name: str, error: EmbedfleetError, record: ClusterRecord | None) -> str:
    if record is not None and record.trouble:
        return "see the condition; `embedfleet describe` shows all of them and the events"
    if isinstance(error, RequestRejected) and error.status in (401, 403) and error.code != BY_API_SERVER:
        return "give the service's key by api_key= or EMBEDFLEET_API_KEY"
    silent = isinstance(error.__cause__, TimeoutError) or "timeout" in str(error).lower() or "timed out" in str(error)
    return _POLICIES.get(name, "") if silent else ""


_POLICIES = {
    DNS: "nothing answers, as where a NetworkPolicy is in the way: the service's spec.network.allowedNamespaces must"
    " name this pod's namespace, and this pod's own policy must let it out to port 8080",
    PROXY: "the pods do not answer the API server, as where a NetworkPolicy is in the way: the service's"
    " spec.network.apiServerCIDRs must have the API server's addresses",
    INGRESS: "the Ingress does not answer from here: its controller, a firewall, or no VPN",
}
