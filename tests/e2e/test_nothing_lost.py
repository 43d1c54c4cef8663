"""Clients with kept-alive connections ask throughout everything that replaces or takes away pods: nothing is lost.

Each request ends answered, or refused with `accepted: false`, and the pods' own journals say the same of it.
"""

import json
from typing import Any

import pytest

from tests.support.operators import until
from tests.support.releases import Installed
from tests.support.rooms import PATIENCE, Load, Room, container, journal_volume, load, spec_of, troubles_of

pytestmark = pytest.mark.requirement("O3", "S4")
SOME = 30
"""Requests: a second's worth, so that what follows meets clients at work."""
Plain = dict[str, Any]


@pytest.fixture(scope="module")
def pair(place: Room) -> Room:
    """Two replicas, Ready."""
    place.apply(spec_of(replicas=2))
    place.ready()
    return place


def assert_nothing_lost(made: Room, asked: Load, *, refusals: bool = False) -> None:
    """Clients and journals agree on every request; none was even refused, unless `refusals` allows that."""
    assert troubles_of(made, asked) == [], str(asked)
    if not refusals:
        assert (asked.refused, asked.away) == (0, 0), str(asked)


def replaced(made: Room, before: set[str]) -> None:
    """Return once the newest spec is served by other pods than those of `before`."""
    made.ready()
    assert not made.uids() & before


def test_a_new_spec_loses_nothing(pair: Room) -> None:
    """(a) A change that replaces the pods."""
    before = pair.uids()
    with load(pair, "spec") as asked:
        pair.patch({"spec": {"drain": {"requestSeconds": 11}}})
        replaced(pair, before)
        asked.passed(SOME)
    assert_nothing_lost(pair, asked)


def test_a_new_image_loses_nothing_though_the_operator_dies(pair: Room, installed: Installed) -> None:
    """(b) and (f) Another image, and all replicas of the operator are killed while the pods are being replaced."""
    image, before = pair.ground.another_tag(pair.ground.images.server, "again"), pair.uids()
    with load(pair, "image") as asked:
        pair.patch({"spec": {"image": image}})
        until(lambda: pair.uids() - before, PATIENCE)
        killed = installed.operators()
        installed.kubectl("delete", "pod", *killed.values(), "--grace-period=0", "--force")
        replaced(pair, before)
        asked.passed(SOME)
    assert_nothing_lost(pair, asked)
    assert not installed.operators().keys() & killed.keys()
    images = {pod["spec"]["containers"][0]["image"] for pod in pair.pods()}
    assert images == {image}


def test_a_new_operator_loses_nothing(pair: Room, installed: Installed) -> None:
    """(f) The release is upgraded to another image of the operator while pods are being replaced: the new operator
    goes on where the old one stood, and replaces no pod for its own sake.
    """
    image, before = pair.ground.another_tag(pair.ground.images.operator, "next"), pair.uids()
    with load(pair, "operator") as asked:
        pair.patch({"spec": {"drain": {"requestSeconds": 12}}})
        until(lambda: pair.uids() - before, PATIENCE)
        installed.upgrade({"image.tag": "next"})
        replaced(pair, before)
        served = pair.uids()
        pair.patch({"spec": {"batching": {"maxBatchSize": 48}}})
        until(lambda: pair.get()["status"]["batchingGeneration"] == pair.get()["metadata"]["generation"], PATIENCE)
        asked.passed(SOME)
    assert_nothing_lost(pair, asked)
    assert installed.running() == {image}
    assert pair.uids() == served


def test_fewer_replicas_lose_nothing(pair: Room) -> None:
    """(c) Scaled down, and up again."""
    with load(pair, "scale") as asked:
        pair.kubectl("scale", "embed", pair.name, "--replicas=1")
        until(lambda: len(pair.pods()) == 1, PATIENCE)
        asked.passed(SOME)
        pair.kubectl("scale", "embed", pair.name, "--replicas=2")
        pair.ready()
        asked.passed(SOME)
    assert_nothing_lost(pair, asked)


def test_a_deleted_pod_loses_nothing(pair: Room) -> None:
    """(e) Somebody deletes a pod."""
    victim = pair.pods()[0]["metadata"]["name"]
    with load(pair, "delete") as asked:
        pair.kubectl("delete", "pod", victim, "--wait=false")
        until(lambda: victim not in [pod["metadata"]["name"] for pod in pair.pods()], PATIENCE)
        pair.ready()
        asked.passed(SOME)
    assert_nothing_lost(pair, asked)


def test_a_drained_node_loses_nothing(pair: Room) -> None:
    """(d) `kubectl drain` of the node with most of the service's pods: the budget lets them go one at a time."""
    nodes = [node["metadata"]["name"] for node in pair.ground.nodes()]
    if len(nodes) < 2:
        pytest.skip("the cluster has one node: there is nowhere to drain to")
    places = [pod["spec"]["nodeName"] for pod in pair.pods()]
    drained = max(nodes, key=places.count)
    with load(pair, "drain") as asked:
        chosen = f"--pod-selector=embedfleet.dev/service={pair.name}"
        try:
            pair.kubectl("drain", drained, chosen, "--delete-emptydir-data", f"--timeout={PATIENCE}s")
            pair.ready()
            assert drained not in [pod["spec"]["nodeName"] for pod in pair.pods()]
            asked.passed(SOME)
        finally:
            pair.kubectl("uncordon", drained)
    assert_nothing_lost(pair, asked)


def test_one_replica_without_a_spare_gpu(place: Room) -> None:
    """(g) No GPU is free for a successor: the old pod drains first, which the condition says. Requests are refused
    meanwhile, and none is in doubt.
    """
    lone = Room(place.ground, place.keepers, place.namespace, "lone")
    node = place.ground.nodes()[0]["metadata"]["name"]
    offer(place, node, 1)
    rollout = {"strategy": "Auto", "waitForCapacitySeconds": 2}
    lone.apply(spec_of(gpu={"count": 1}, rollout=rollout))
    lone.ready()
    before = lone.uids()
    with load(lone, "lone") as asked:
        lone.patch({"spec": {"drain": {"requestSeconds": 11}}})
        until(lambda: lone.condition("RolloutBlocked")["reason"] == "InsufficientGPU", PATIENCE)
        until(lambda: lone.condition("Progressing")["reason"] == "DrainingFirst", PATIENCE)
        replaced(lone, before)
        asked.passed(SOME)
    assert_nothing_lost(lone, asked, refusals=True)
    assert {"InsufficientGPU", "DrainingFirst"} <= {one["reason"] for one in lone.events()}
    lone.kubectl("delete", "embed", lone.name)


def offer(place: Room, node: str, gpus: int) -> None:
    """Let `node` say that it has GPUs, and every other node none."""
    for one in place.ground.nodes():
        name = one["metadata"]["name"]
        offered = {"nvidia.com/gpu": str(gpus if name == node else 0)}
        change = json.dumps({"status": {"capacity": offered}})
        place.kubectl("patch", "node", name, "--subresource=status", "--type=merge", "-p", change)
    path = r"jsonpath={.status.allocatable.nvidia\.com/gpu}"
    place.kubectl("wait", f"node/{node}", f"--for={path}={gpus}", f"--timeout={PATIENCE}s")


DIES_AT_ONCE = """
python -m embedfleet_server "$@" &
server=$!
trap 'kill -9 $server; exit 0' TERM
wait $server
"""
"""A server that SIGTERM ends as it ends most programs: only the preStop hook drains it."""


@pytest.mark.parametrize("has_hook", [True, False], ids=["with the hook", "without the hook"])
def test_without_the_hook_it_is_seen(place: Room, *, has_hook: bool) -> None:
    """The ledger can fail: pods that die of SIGTERM at once lose nothing as long as the preStop hook drains them
    before; without the hook a deleted pod takes requests with it, and that shows.
    """
    frail = Room(place.ground, place.keepers, place.namespace, "frail")
    command = {"command": ["sh", "-c", DIES_AT_ONCE, "server"]}
    hook: Plain = {} if has_hook else {"lifecycle": {"$patch": "replace"}}
    template = {"spec": {"containers": [container(**command, **hook)], "volumes": [journal_volume()]}}
    frail.apply(spec_of(podTemplate=template, replicas=2))
    frail.ready()
    with load(frail, "frail", clients=12) as asked:
        frail.kubectl("delete", "pod", frail.pods()[0]["metadata"]["name"], "--wait=false")
        asked.passed(10 * SOME)
    found = [line for line in troubles_of(frail, asked) if "ambiguous" in line]
    assert bool(found) is not has_hook, str(asked)
