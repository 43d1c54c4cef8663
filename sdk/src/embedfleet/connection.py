"""`connect`: from a name to a client that has spoken with its server.

Not `connect.py`: a submodule of that name would take the place of the function `embedfleet.connect` once imported.
"""

import os
from contextlib import aclosing
from pathlib import Path

from embedfleet.cache import CacheArgument
from embedfleet.client import AsyncService, Service
from embedfleet.errors import (
    EmbedfleetError,
    Forbidden,
    NoCluster,
    RequestRejected,
    ServiceNotFound,
    ServiceUnavailable,
)
from embedfleet.explained import Journey, Reached, Tried
from embedfleet.portal import portal
from embedfleet.walk import BY_API_SERVER, INGRESS, Wanted, walk


def connect(
    name: str | None = None,
    *,
    namespace: str | None = None,
    context: str | None = None,
    url: str | None = None,
    api_key: str | None = None,
    model: str | None = None,
    ca: str | os.PathLike[str] | None = None,
    cache: CacheArgument = None,
) -> Service:
    """A client of the service `name`, or of the one service that has a model of that name.

    Looked for at: `url` or EMBEDFLEET_URL; on this machine; then, in a cluster, by its DNS, its Ingress, the API
    server's service proxy, port-forward. The client tells which it uses and why not the ones before (`service.route`).

    Args:
        name: a service, else a model of exactly one; None: the only service that runs here, or in the namespace.
        namespace: of the service in a cluster (also EMBEDFLEET_NAMESPACE). None: the context's first, then all.
        context: of the kubeconfig. None: its current one.
        url: its address, instead of looking for it (also EMBEDFLEET_URL).
        api_key: the service's key (also EMBEDFLEET_API_KEY).
        model: default model of the client's calls.
        ca: a PEM file of the certificates to trust instead of the system's (also EMBEDFLEET_CA_FILE).
        cache: True, a path or a `Cache`: vectors that were computed before are kept there and not computed again.

    Raises:
        ServiceNotFound: nothing of that name; says what exists and where it looked. AmbiguousName: several.
        ServiceUnavailable: found, and not reached; says why not on each route.
        ClusterError: the kubeconfig, the login, a missing permission.
        ProtocolError: what answers is no embedfleet server.
    """
    wanted = Wanted(name, namespace, context, url, api_key, model, Path(ca) if ca else None)
    journey = portal().run(lambda _: find_way(wanted))
    reached = arrived(journey, name)
    return Service(reached.way.url, model=reached.model, cache=cache, way=reached.way, journey=journey)


async def connect_async(
    name: str | None = None,
    *,
    namespace: str | None = None,
    context: str | None = None,
    url: str | None = None,
    api_key: str | None = None,
    model: str | None = None,
    ca: str | os.PathLike[str] | None = None,
    cache: CacheArgument = None,
) -> AsyncService:
    """The twin of `connect` for `async` code."""
    wanted = Wanted(name, namespace, context, url, api_key, model, Path(ca) if ca else None)
    journey = await find_way(wanted)
    reached = arrived(journey, name)
    return AsyncService(reached.way.url, model=reached.model, cache=cache, way=reached.way, journey=journey)


async def find_way(wanted: Wanted) -> Journey:
    """The routes up to the first that leads there, or to one that says that none can."""
    tried: list[Tried] = []
    async with aclosing(walk(wanted)) as steps:
        async for step in steps:
            tried.append(step)
            if step.reached is not None or _is_final(step):
                break
    return Journey(tuple(tried))


def arrived(journey: Journey, name: str | None = None) -> Reached:
    """Where the journey ended; raises why it did not arrive."""
    if journey.taken is not None and journey.taken.reached is not None:
        return journey.taken.reached
    error = failure(journey, name)
    last = [one.error for one in journey.tried if one.error is not None and one.error is not error]
    raise error from (error.__cause__ or (last[-1] if last else None))


def failure(journey: Journey, name: str | None) -> EmbedfleetError:
    """One error for a journey that did not arrive: of the one route there was, or what each route says."""
    failed = [one for one in journey.tried if one.error is not None]
    met, others = [one for one in failed if one.met], [one for one in failed if not one.met]
    whereabouts = [one for one in others if isinstance(one.error, ServiceNotFound | NoCluster)]
    if not met:
        told = [one.error for one in others if one not in whereabouts]
        return told[-1] if told and told[-1] is not None else _not_found(whereabouts)
    if len(met) == 1 and met[0].error is not None and others == whereabouts:
        return met[0].error
    return _unreached(name, [one for one in failed if one not in whereabouts])


def _not_found(tried: list[Tried]) -> EmbedfleetError:
    errors = [one.error for one in tried if one.error is not None]
    if len(errors) == 1:
        return errors[0]
    looked = [place for error in errors for place in (error.looked if isinstance(error, ServiceNotFound) else ())]
    found = [service for error in errors for service in (error.found if isinstance(error, ServiceNotFound) else ())]
    return ServiceNotFound("; ".join(str(error) for error in errors), looked, found)


def _unreached(name: str | None, tried: list[Tried]) -> EmbedfleetError:
    lines = [f"no way leads to {'a service' if name is None else repr(name)}:"]
    for one in tried:
        lines += [f"  {one}", *(f"    {line}" for line in one.remedy.splitlines())]
    text = "\n".join([*lines, f"`embedfleet doctor{f' {name}' if name else ''}` walks every route"])
    rules = [one.error.rule for one in tried if isinstance(one.error, Forbidden)]
    return Forbidden(text, rules[0]) if len(rules) == len(tried) else ServiceUnavailable(text)


def _is_final(step: Tried) -> bool:
    """Whether the service itself has refused us, as it would on any route; an Ingress may have a guard of its own."""
    return isinstance(step.error, RequestRejected) and step.error.code != BY_API_SERVER and step.route != INGRESS
