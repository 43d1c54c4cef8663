"""Ten services of five pods each: all become Ready, and then nothing is written. `make bench` does it tenfold."""

import json

import pytest

from tests.support.cluster_objects import answer
from tests.support.hollow_servers import HollowServers
from tests.support.operators import Place, manifest_of, until, working

SERVICES, PODS = 10, 5
RESYNC_SECONDS = 1.0


@pytest.mark.requirement("O4", "O8")
def test_many_become_ready_and_are_then_left_alone(hollow_place: Place) -> None:
    """Fifty pods on ten services: each status says Ready with what the pods say, and ten resyncs write nothing."""
    items = [manifest_of(f"s-{number}", replicas=PODS) for number in range(SERVICES)]
    with (
        HollowServers(lambda _: answer(1)) as servers,
        working(hollow_place, proxy=servers.url, resync_seconds=RESYNC_SECONDS) as operator,
    ):
        whole = {"apiVersion": "v1", "kind": "List", "items": items}
        hollow_place.kubectl("create", "-f", "-", stdin=json.dumps(whole))
        until(lambda: ready(hollow_place) == SERVICES, 120)
        # On a machine that is busy a node may be late: then its pods, and their services' statuses, change once more.
        assert any(_written_in_ten_resyncs(hollow_place, operator.user) == [] for _ in range(3))
    services = json.loads(hollow_place.kubectl("get", "embed", "-o", "json"))["items"]
    assert {one["status"]["readyReplicas"] for one in services} == {PODS}
    assert {one["status"]["models"][0]["dimensions"] for one in services} == {384}


def _written_in_ten_resyncs(place: Place, user: str) -> list[str]:
    """What is written from now on: the first two resyncs finish what the last events asked for."""
    seen = place.looks(user)
    until(lambda: place.looks(user) >= seen + 2, 60)
    writes, seen = place.written_by(user), place.looks(user)
    until(lambda: place.looks(user) >= seen + 11, 60)
    return [f"{one['verb']} {one['requestURI']}" for one in place.written_by(user)[len(writes) :]]


def ready(place: Place) -> int:
    """How many services say that they are served whole."""
    found = json.loads(place.kubectl("get", "embed", "-o", "json"))["items"]
    conditions = [each for one in found for each in one.get("status", {}).get("conditions", [])]
    return sum(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
