"""How a rollout goes with the room that there is: a real scheduler, nodes that have GPUs or none to spare."""

import json
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

import pytest

from embedfleet_operator.cluster import Transport
from tests.support.cluster_objects import answer
from tests.support.hollow_servers import HollowServers
from tests.support.operators import Place, until, working

Plain = dict[str, Any]
GPU = {"count": 1}
OTHER = [{"name": "m", "source": {"path": "/models/n"}}]
SURGE, DRAIN = ("25%", 0), (0, 1)


class Recorder:
    """What the operator writes, in order: the ways of its Deployment, and its conditions as type and reason."""

    def __init__(self) -> None:
        self.ways: list[tuple[Any, Any]] = []
        self.conditions: list[tuple[str, str, str]] = []

    def around(self, inner: Transport) -> Transport:
        """A way to the API server that is watched."""
        self._inner = inner
        return self

    async def request(
        self, method: str, path: str, query: Mapping[str, str], body: Plain | None, content: str
    ) -> Plain:
        if method == "PATCH" and body and "/deployments/" in path:
            rolling = body["spec"]["strategy"]["rollingUpdate"]
            self.ways.append((rolling["maxSurge"], rolling["maxUnavailable"]))
        if method == "PATCH" and body and path.endswith("/status"):
            conditions = body["status"]["conditions"]
            self.conditions += [(one["type"], one["status"], one["reason"]) for one in conditions]
        return await self._inner.request(method, path, query, body, content)


@pytest.fixture
def proxy() -> Iterator[str]:
    """Through which every pod answers that it runs the newest values of two edits."""
    with HollowServers(lambda _: answer(2)) as servers:
        yield servers.url


@pytest.fixture
def gpu_place(hollow_place: Place) -> Iterator[Place]:
    """A namespace for one test alone, whose pods are gone from the nodes at the end."""
    yield hollow_place
    hollow_place.kubectl("delete", "embed,deployments,replicasets,pods", "--all", "--now", "--timeout=60s")


def gpus(place: Place, *counts: int) -> None:
    """Let the hollow nodes have so many GPUs, node by node."""
    for index, count in enumerate(counts, 1):
        amount = {"nvidia.com/gpu": str(count)}
        status = json.dumps({"status": {"capacity": amount, "allocatable": amount}})
        place.kubectl("patch", "node", f"hollow{index}", "--subresource=status", "--type=merge", "-p", status)


def served(place: Place, generation: int) -> bool:
    """Whether the service is Ready, of that generation, and no rollout is in the way."""
    ready, blocked = place.condition(), place.condition("RolloutBlocked")
    return (ready["status"], ready["observedGeneration"], blocked["status"]) == ("True", generation, "False")


def way(place: Place) -> tuple[Any, Any]:
    """How the Deployment replaces pods just now."""
    rolling = place.get("deployment")["spec"]["strategy"]["rollingUpdate"]
    return rolling["maxSurge"], rolling["maxUnavailable"]


def stand_a_while(place: Place) -> None:
    """Let each new pod be ready for 2 s before the next step: pretended ones would be all done between two looks."""
    place.patch("deployment", place.name, {"spec": {"minReadySeconds": 2}})


@pytest.mark.requirement("O3")
def test_without_a_spare_gpu_an_old_pod_drains_first(gpu_place: Place, proxy: str) -> None:
    """A new pod that finds no GPU waits as long as it may, while the old ones serve; that the rollout is blocked is
    said; then an old pod leaves before its successor starts, one by one, and the next rollout is to surge again.
    """
    spec = {"replicas": 3, "gpu": GPU, "rollout": {"waitForCapacitySeconds": 3}}
    gpus(gpu_place, 2, 1)
    seen = Recorder()
    with working(gpu_place, seen.around, namespaces=(), resync_seconds=2, proxy=proxy):
        gpu_place.apply(**spec)
        until(lambda: served(gpu_place, 1), 60)
        stand_a_while(gpu_place)
        before = {one["metadata"]["uid"] for one in gpu_place.pods()}
        gpu_place.apply(**spec, models=OTHER)
        until(lambda: served(gpu_place, 2), 60)
        until(lambda: way(gpu_place) == SURGE)
        after = {one["metadata"]["uid"] for one in gpu_place.pods()}
    assert len(before) == len(after) == 3
    assert not before & after
    assert [one for one, _ in groupby(seen.ways)] == [SURGE, DRAIN, SURGE]
    waits = seen.conditions.index(("Progressing", "True", "WaitingForCapacity"))
    blocked = seen.conditions.index(("RolloutBlocked", "True", "InsufficientGPU"))
    drains = seen.conditions.index(("Progressing", "True", "DrainingFirst"))
    assert waits < blocked < drains
    assert ("Available", "False", "NoPods") not in seen.conditions[waits:]


@pytest.mark.requirement("O3")
def test_with_a_spare_gpu_the_new_pod_comes_first(gpu_place: Place, proxy: str) -> None:
    """Where a GPU is free the new pod takes it; nothing is said to be in the way, and no moment is without a pod."""
    spec = {"replicas": 1, "gpu": GPU, "rollout": {"waitForCapacitySeconds": 3}}
    gpus(gpu_place, 1, 1)
    seen = Recorder()
    with working(gpu_place, seen.around, namespaces=(), resync_seconds=2, proxy=proxy):
        gpu_place.apply(**spec)
        until(lambda: served(gpu_place, 1), 60)
        stand_a_while(gpu_place)
        start = len(seen.conditions)
        gpu_place.apply(**spec, models=OTHER)
        until(lambda: served(gpu_place, 2), 60)
    assert set(seen.ways) == {SURGE}
    reasons = {reason for _, _, reason in seen.conditions[start:]}
    assert "RollingOut" in reasons
    assert not {"WaitingForCapacity", "InsufficientGPU", "DrainingFirst", "NoPods"} & reasons


@pytest.mark.requirement("O3")
def test_surge_as_asked_waits_for_a_gpu_and_says_so(gpu_place: Place, proxy: str) -> None:
    """With `rollout.strategy: Surge` the old pod serves on however long no GPU is free, and the rollout ends by itself
    once there is one.
    """
    gpus(gpu_place, 1, 0)
    rollout = {"strategy": "Surge", "waitForCapacitySeconds": 1}
    with working(gpu_place, namespaces=(), resync_seconds=1, proxy=proxy):
        gpu_place.apply(replicas=1, gpu=GPU, rollout=rollout)
        until(lambda: served(gpu_place, 1), 60)
        gpu_place.apply(replicas=1, gpu=GPU, rollout=rollout, models=OTHER)
        blocked = until(lambda: is_blocked(gpu_place), 60)
        assert blocked["reason"] == "InsufficientGPU"
        assert "GPU" in blocked["message"]
        assert way(gpu_place) == SURGE
        assert gpu_place.condition("Available")["status"] == "True"
        gpus(gpu_place, 1, 1)
        until(lambda: served(gpu_place, 2), 60)


def is_blocked(place: Place) -> Plain | None:
    """The condition RolloutBlocked while it is true."""
    found = place.condition("RolloutBlocked")
    return found if found["status"] == "True" else None
