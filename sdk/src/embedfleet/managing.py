"""What a client can ask of the cluster that its service runs in: wait, scale, events."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from embedfleet import environment
from embedfleet.errors import NoCluster, ServiceUnavailable, TimedOut
from embedfleet.explained import Journey
from embedfleet.kube import config, objects
from embedfleet.kube.api import ApiServer
from embedfleet.kube.credentials import Credentials
from embedfleet.kube.objects import Event
from embedfleet.kube.record import ClusterRecord
from embedfleet.portal import Caller, portal, tell_user

if TYPE_CHECKING:
    from embedfleet.wire import ModelCard

T = TypeVar("T")

READY_SECONDS = 600.0
"""A first start pulls an image and weights of some gigabytes."""
_POLL_SECONDS = 1.0
_UNDER_WAY = ("Pending", "Loading")


class Place:
    """One service of one cluster, by whatever event loop asks."""

    def __init__(self, credentials: Credentials, namespace: str, name: str) -> None:
        self.credentials, self.namespace, self.name = credentials, namespace, name

    async def record(self) -> ClusterRecord:
        """What the cluster says of it now."""
        return await self._ask(lambda api: objects.record(api, self.namespace, self.name))

    async def scale(self, replicas: int) -> None:
        """Set the number of its pods."""
        await self._ask(lambda api: objects.scale(api, self.namespace, self.name, replicas))

    async def events(self) -> list[Event]:
        """What was said about it, oldest first."""
        return await self._ask(lambda api: objects.events(api, self.namespace, self.name))

    async def delete(self) -> None:
        """Delete it."""
        await self._ask(lambda api: objects.delete(api, self.namespace, self.name))

    async def wait_ready(self, seconds: float) -> ClusterRecord:
        """Until the newest spec is served whole; what changes on the way is told. Raises `TimedOut`."""
        return await _until_ready(self._told, seconds)

    async def _told(self) -> tuple[bool, str, ClusterRecord]:
        record = await self.record()
        return record.is_ready, how_far(record), record

    async def _ask(self, work: Callable[[ApiServer], Awaitable[T]]) -> T:
        async with ApiServer(self.credentials) as api:
            return await work(api)


class AsyncManaging:
    """The part of `AsyncService` that speaks with the cluster. Raises `ClusterError` where there is none."""

    if TYPE_CHECKING:
        url: str
        route: Journey

        async def models(self) -> "tuple[ModelCard, ...]":
            """See `AsyncService`."""
            ...

    async def wait_ready(self, timeout: float = READY_SECONDS) -> None:  # noqa: ASYNC109  # the SDK's own word
        """Wait until every pod (on this machine: every model) is ready, telling of starting, loading, ready.

        Raises `TimedOut` with the condition that keeps it, `ServiceUnavailable` for a local model that has failed.
        """
        record = self.route.record
        if record is None or not record.seen:
            await _until_ready(self._loaded, timeout)
        else:
            await place_of(self.route, self.url).wait_ready(timeout)

    async def scale(self, replicas: int) -> None:
        """Set the number of pods in the cluster."""
        await place_of(self.route, self.url).scale(replicas)

    async def events(self) -> list[Event]:
        """What was said in the cluster about the service and its pods, oldest first."""
        return await place_of(self.route, self.url).events()

    async def _loaded(self) -> "tuple[bool, str, ClusterRecord | None]":
        cards = await self.models()
        under_way = [card for card in cards if card.state in _UNDER_WAY]
        failed = [f"model {card.name!r} has failed: {card.cause or 'no cause told'}" for card in cards if _failed(card)]
        if failed and not under_way:
            raise ServiceUnavailable("; ".join(failed))
        return not under_way, ", ".join(f"{card.name} {card.state}" for card in cards), None


class Managing:
    """The part of `Service` that speaks with the cluster; see `AsyncManaging`."""

    if TYPE_CHECKING:
        url: str
        route: Journey

        def _run(self, work: Callable[[Any, Caller], Coroutine[Any, Any, T]]) -> T: ...

    def wait_ready(self, timeout: float = READY_SECONDS) -> None:
        """Wait until every pod (on this machine: every model) is ready, telling of starting, loading, ready."""
        self._run(lambda core, _: core.wait_ready(timeout))

    def scale(self, replicas: int) -> None:
        """Set the number of pods in the cluster."""
        self._run(lambda core, _: core.scale(replicas))

    def events(self) -> list[Event]:
        """What was said in the cluster about the service and its pods, oldest first."""
        found: list[Event] = self._run(lambda core, _: core.events())
        return found


class ClusterService:
    """A service of a cluster as the cluster tells of it; `embedfleet.connect` makes a client of it."""

    def __init__(self, place: Place, record: ClusterRecord) -> None:
        self._place = place
        self.record = record

    @property
    def service(self) -> str:
        """Its name."""
        return self.record.service

    @property
    def namespace(self) -> str:
        """Where it is."""
        return self.record.namespace

    @property
    def models(self) -> list[str]:
        """Names of its models."""
        return list(self.record.models)

    @property
    def url(self) -> str | None:
        """Its address, as its status has it."""
        return self.record.url

    @property
    def state(self) -> str:
        """Ready, or the reason why not."""
        return self.record.state

    def refresh(self) -> ClusterRecord:
        """Ask the cluster anew."""
        self.record = portal().run(lambda _: self._place.record())
        return self.record

    def wait_ready(self, timeout: float = READY_SECONDS) -> None:
        """Wait until its newest spec is served whole, telling of starting, loading, ready. Raises `TimedOut`."""
        self.record = portal().run(lambda _: self._place.wait_ready(timeout))

    def scale(self, replicas: int) -> None:
        """Set the number of its pods."""
        portal().run(lambda _: self._place.scale(replicas))

    def events(self) -> list[Event]:
        """What was said about it and its pods, oldest first."""
        return portal().run(lambda _: self._place.events())

    def __repr__(self) -> str:
        record = self.record
        return f"<ClusterService '{record}' {record.state}, {record.ready} of {record.wanted} pods ready>"


def place_of(route: Journey, url: str) -> Place:
    """The service that a client was led to. Raises `NoCluster` when it is in none."""
    record = route.record
    if record is None:
        text = f"the service at {url} is on this machine, or was reached by its address alone"
        raise NoCluster(f"{text}: connect to a service of a cluster by its name")
    reached = route.taken.reached if route.taken is not None else None
    known = reached.credentials if reached is not None else None
    credentials = known or Credentials(config.entered(None, environment.read()))
    return Place(credentials, record.namespace or credentials.context.namespace, record.service)


def how_far(record: ClusterRecord) -> str:
    """Where a service is on its way to being ready, in a line."""
    models = ", ".join(f"{name} {state}" for name, state in record.model_states.items())
    line = f"{record}: {record.state}, {record.ready} of {record.wanted} pods ready"
    line += f"; models: {models}" if models else ""
    ready = record.condition("Ready")
    return line if ready is None or record.is_ready or not ready.message else f"{line} ({ready.message})"


async def _until_ready(look: Callable[[], Awaitable[tuple[bool, str, T]]], seconds: float) -> T:
    end, told = time.monotonic() + seconds, ""
    while True:
        done, line, found = await look()
        if line != told:
            tell_user(f"{line}\n")
            told = line
        if done:
            return found
        if time.monotonic() >= end:
            raise TimedOut(f"not ready after {seconds:g} s: {line}")
        await asyncio.sleep(_POLL_SECONDS)


def _failed(card: "ModelCard") -> bool:
    return card.state == "Failed"
