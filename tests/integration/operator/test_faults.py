"""Killed at any write, or without an API server for a while: the end is that of the undisturbed run."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from embedfleet_operator.cluster import Cluster, HttpTransport, Transport
from embedfleet_operator.credentials import Credentials
from embedfleet_operator.observe import Observer
from embedfleet_operator.pods import Pods
from embedfleet_operator.reconcile import Reconciler
from tests.support.faulty_proxy import proxied
from tests.support.operators import CHILDREN, Place, configuration_of, until, whole_pass, working

Plain = dict[str, Any]
MOST_WRITES = 40
"""More than a first pass makes: the loop over them ends when one is no longer reached."""


class Killed(BaseException):
    """The process is no more."""


class FaultyWrites:
    """A way to the API server on which the write number `at` (from 0) meets `fault`.

    before: the write does not get there. after: it is taken, the answer is lost.
    """

    def __init__(self, inner: Transport, at: int, fault: str) -> None:
        self._inner, self._at, self._fault = inner, at, fault
        self.writes = 0

    async def request(
        self, method: str, path: str, query: Mapping[str, str], body: Plain | None, content: str
    ) -> Plain:
        if method == "GET":
            return await self._inner.request(method, path, query, body, content)
        self.writes += 1
        if self.writes - 1 != self._at:
            return await self._inner.request(method, path, query, body, content)
        if self._fault == "after":
            await self._inner.request(method, path, query, body, content)
        raise Killed


async def one_pass(place: Place, at: int = MOST_WRITES, fault: str = "before") -> int:
    """One pass of a new operator; how many writes it made. Raises what it ended by."""
    configuration = configuration_of(place, place.cluster.kubeconfig, "test")
    async with HttpTransport(Credentials(configuration)) as http, Pods() as pods:
        faulty = FaultyWrites(http, at, fault)
        cluster = Cluster(faulty)
        reconciler = Reconciler(cluster, Observer(cluster, pods, configuration), "test")
        await whole_pass(reconciler, place.namespace, place.name)
        return faulty.writes


def converge(place: Place) -> None:
    """Passes of new operators until one has nothing to write and the controllers have caught up."""
    until(lambda: asyncio.run(one_pass(place)) == 0 and bool(place.settled()))


def state(place: Place) -> str:
    """All that a run leaves: children as rendered, conditions and events' reasons, without names that chance gave."""
    children = [
        {key: one.get(key) for key in ("kind", "spec", "data")} | {"name": one["metadata"]["name"]}
        for one in place.all(CHILDREN)
    ]
    for child in children:
        (child["spec"] or {}).pop("clusterIP", None)
        (child["spec"] or {}).pop("clusterIPs", None)
    conditions = [(one["type"], one["status"], one["reason"]) for one in place.get("embed")["status"]["conditions"]]
    return json.dumps([sorted(children, key=str), conditions], sort_keys=True)


@pytest.fixture
def undisturbed(place: Place) -> str:
    """What a run that nothing disturbs leaves."""
    place.apply()
    converge(place)
    made = state(place)
    clear(place)
    return made


def clear(place: Place) -> None:
    """Without the service and its children, as quickly as may be."""
    place.kubectl("delete", "embed", place.name, "--wait=true")
    place.kubectl("delete", f"{CHILDREN},replicasets,pods", "-l", f"embedfleet.dev/service={place.name}", "--now")
    place.kubectl("delete", "events.events.k8s.io", "--all")
    until(lambda: not place.all(f"{CHILDREN},replicasets,pods"))


@pytest.mark.requirement("O7")
@pytest.mark.parametrize("fault", ["before", "after"])
def test_killed_at_each_write(place: Place, undisturbed: str, fault: str) -> None:
    """An operator that dies at a write, taken or not, is followed by one that comes to the same end; no event twice."""
    for at in range(MOST_WRITES):
        place.apply()
        try:
            asyncio.run(one_pass(place, at, fault))
        except Killed:
            pass
        else:
            break
        converge(place)
        assert state(place) == undisturbed, f"killed {fault} write {at}"
        told = [(one["reason"], one["note"].replace(one["reason"], "")) for one in place.all_events()]
        applying = [reason for reason, _ in told if reason == "Applying"]
        assert len(applying) <= 1, f"killed {fault} write {at}"
        clear(place)
    assert at >= 8  # ServiceAccount, two ConfigMaps, Service, budget, policy, Deployment, event, status


@pytest.mark.requirement("O7")
def test_an_api_server_that_is_away(place: Place) -> None:
    """While each connection is reset, those of the watch too, and the Lease cannot be renewed, nothing happens to the
    pods; afterwards what was changed meanwhile is done, and the watch hears again, long before a resync.
    """
    with (
        proxied(place.cluster.kubeconfig) as proxy,
        working(place, kubeconfig=proxy.kubeconfig, resync_seconds=1, lease_seconds=3),
    ):
        place.apply()
        place.settled()
        pods = {one["metadata"]["uid"] for one in place.pods()}
        proxy.is_away, asked = True, len(proxy.calls)
        place.apply(replicas=3)
        place.kubectl("delete", "service", place.name)
        until(lambda: sum("leases" in call.path for call in proxy.calls[asked:]) >= 6)  # longer than a hold
        assert {one["metadata"]["uid"] for one in place.pods()} == pods
        proxy.is_away, back = False, len(proxy.calls)
        until(lambda: place.get("service"))
        until(lambda: len(place.pods()) == 3)
        assert pods < {one["metadata"]["uid"] for one in place.pods()}
        until(lambda: any(call.is_watch and call.code for call in proxy.calls[back:]))
