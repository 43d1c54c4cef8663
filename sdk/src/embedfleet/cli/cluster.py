"""What the commands do in a cluster."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from embedfleet import fleet
from embedfleet.cli import listing
from embedfleet.cli.printing import table
from embedfleet.cli.target import Target
from embedfleet.errors import ClusterError, ServiceNotFound
from embedfleet.kube import objects
from embedfleet.kube.api import ApiServer, Tree
from embedfleet.kube.objects import Event
from embedfleet.kube.record import ClusterRecord, read
from embedfleet.manifest import load
from embedfleet.portal import portal

_HEADS = ("NAMESPACE", "SERVICE", "STATE", "PODS", "MODELS", "URL")
_SHOWN_EVENTS = 20


def objects_of(target: Target) -> tuple[list[Tree], str | None]:
    """The services of the cluster, and why there are none where it cannot be asked. Raises when it was asked for."""
    try:
        _, found = portal().run(lambda _: fleet.objects_in(target.namespace, target.context))
    except ClusterError as error:
        if target.is_in_a_cluster:
            raise
        return [], str(error)
    wanted = [tree for tree in found if target.name in (None, tree["metadata"]["name"])]
    return sorted(wanted, key=lambda tree: str(read(tree))), None


def as_table(trees: Sequence[Tree]) -> str:
    """A line for each service."""
    return table([_HEADS, *(_cells(read(tree)) for tree in trees)])


def applied(file: Path, namespace: str | None, context: str | None, *, force: bool) -> str:
    """Apply the manifest in `file`."""
    made = fleet.apply(load(file), namespace=namespace, context=context, force=force)
    return f"{made.record} is applied; `embedfleet describe {made.service} -n {made.namespace}` tells how it gets on"


def described(target: Target) -> str:
    """All that there is to tell of a service."""
    place = target.place()

    async def ask() -> tuple[ClusterRecord, list[Event]]:
        return await place.record(), await place.events()

    record, events = portal().run(lambda _: ask())
    lines = [
        f"service     {record}",
        f"state       {record.state}",
        f"pods        {record.ready} of {record.wanted} ready",
        f"url         {record.url or 'none yet'}",
        f"models      {_models(record)}",
        "conditions",
        *(f"  {one}" for one in record.conditions),
        f"events      {'' if events else 'none'}".rstrip(),
        *(f"  {one}" for one in events[-_SHOWN_EVENTS:]),
    ]
    return "\n".join(lines)


def scaled(target: Target, replicas: int) -> str:
    """Set the number of pods."""
    place = target.place()
    portal().run(lambda _: place.scale(replicas))
    return f"{place.namespace}/{place.name} is to have {replicas} pods"


def set_paused(target: Target, model: str | None, *, paused: bool) -> str:
    """Pause or resume by the manifest: all of a service, or one model."""
    _change(target, model, {"paused": paused})
    about = f"model {model!r} of {target.name!r}" if model else repr(target.name)
    return f"{about} is to be {'paused' if paused else 'resumed'}: its manifest says so now"


def set_batching(target: Target, values: Mapping[str, Any]) -> str:
    """Change batching values in the manifest."""
    _change(target, None, values)
    return f"{target.name!r} gets {', '.join(values)}: its manifest says so now"


def print_logs(target: Target, tail: int, *, previous: bool, follow: bool) -> None:
    """The logs of all pods; with `follow` until Ctrl-C."""
    place = target.place()

    async def one(api: ApiServer, pod: str) -> None:
        found = objects.log(api, place.namespace, pod, lines=tail, previous=previous, follow=follow)
        async with aclosing(found) as lines:
            async for line in lines:
                print(f"{pod}  {line}", flush=follow)

    async def every() -> None:
        async with ApiServer(place.credentials) as api:
            pods = await objects.pods(api, place.namespace, place.name)
            if not pods:
                raise ServiceNotFound(f"{place.namespace}/{place.name} has no pods")
            if follow:
                await asyncio.gather(*(one(api, pod) for pod in pods))
            else:
                for pod in pods:
                    await one(api, pod)

    asyncio.run(every())


def _change(target: Target, model: str | None, values: Mapping[str, Any]) -> None:
    place = target.place()

    async def change() -> None:
        async with ApiServer(place.credentials) as api:
            if model is None:
                await objects.change(api, place.namespace, place.name, {"batching": dict(values)})
            else:
                await objects.change_model(api, place.namespace, place.name, model, values)

    portal().run(lambda _: change())


def _cells(record: ClusterRecord) -> tuple[str, ...]:
    pods = f"{record.ready}/{record.wanted}"
    return record.namespace, record.service, record.state, pods, _models(record), record.url or ""


def _models(record: ClusterRecord) -> str:
    return ", ".join(listing.model(name, record.model_states.get(name, "Ready")) for name in record.models)
