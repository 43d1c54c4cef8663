"""Pods on several nodes: spread, and what becomes of the service when a node is lost or cut off."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import embedfleet as sdk
from embedfleet.errors import TimedOut
from tests.support.cables import partitioned, pulled
from tests.support.operators import until
from tests.support.rooms import PATIENCE, Room, container, journal_volume, load, spec_of, troubles_of

GONE = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
CALL_SECONDS = 15
"""Of one call: a pod that no packet reaches answers nobody, and TCP alone waits for many minutes."""
SOME = 30
"""Requests: a second's worth."""
Plain = dict[str, Any]


@pytest.fixture(scope="module")
def pair(place: Room) -> Room:
    """Two replicas, Ready, whose pods are given up 5 s after their node is."""
    if len(place.ground.nodes()) < 2:
        pytest.skip("the cluster has one node")
    patience = [{"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5} for key in GONE]
    template = {"spec": {"containers": [container()], "volumes": [journal_volume()], "tolerations": patience}}
    place.apply(spec_of(podTemplate=template, replicas=2))
    place.ready()
    return place


@pytest.mark.requirement("O1")
def test_pods_are_spread(pair: Room) -> None:
    """Two pods run on two nodes."""
    assert len({pod["spec"]["nodeName"] for pod in pair.pods()}) == 2


@pytest.mark.requirement("O1", "K1")
def test_a_lost_node_is_ridden_out(pair: Room, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a node out of reach the service says that it is Degraded, and a pod on the other node takes the lost one's
    place. The SDK's calls end with vectors; one that was in flight to the lost pod ends by its own `timeout`.
    """
    own = pair.ground.own
    if own is None:
        pytest.skip("only a cluster of our own loses a node on demand")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(pair.ground.kubeconfig))
    before = pair.uids()
    with sdk.connect(pair.name, namespace=pair.namespace) as service, pulled(own, 2), embedding(service) as made:
        until(lambda: pair.condition("Degraded")["reason"] == "FewerPods", PATIENCE)
        until(lambda: len(on_node(pair, "node1")) == 2, PATIENCE)
        until(lambda: len(pair.uids() - before) == 1, PATIENCE)
        until(lambda: pair.get()["status"]["readyReplicas"] == 2, PATIENCE)
        enough = len(made) + 10
        until(lambda: len(made) >= enough, PATIENCE)
    own.kubectl("wait", "node/node2", "--for=condition=Ready", f"--timeout={PATIENCE}s")
    pair.ready()


@pytest.mark.requirement("O1", "S4")
def test_a_partition_loses_nothing(pair: Room) -> None:
    """A node that the control plane no longer hears, and whose pods clients reach as before: its pod goes on serving
    those connected to it while another pod takes its place, and drains once the node hears that it is to leave. Each
    request ends answered or refused with `accepted: false`.
    """
    own = pair.ground.own
    if own is None:
        pytest.skip("only a cluster of our own cuts off a node on demand")
    spread_again(pair)
    before = pair.uids()
    with load(pair, "partition") as asked:
        with partitioned(own, 2):
            until(lambda: pair.condition("Degraded")["reason"] == "FewerPods", PATIENCE)
            until(lambda: len(pair.uids() - before) == 1, PATIENCE)
            until(lambda: pair.get()["status"]["readyReplicas"] == 2, PATIENCE)
            assert before <= pair.uids()  # nobody could tell the pod there that it is to leave
            asked.passed(SOME)
        own.kubectl("wait", "node/node2", "--for=condition=Ready", f"--timeout={PATIENCE}s")
        pair.ready()
        asked.passed(SOME)
    assert troubles_of(pair, asked) == [], str(asked)


def spread_again(pair: Room) -> None:
    """A pod on either node, as after a rollout; a node that was lost has none when it is back."""
    if not on_node(pair, "node2"):
        pair.kubectl("delete", "pod", on_node(pair, "node1")[0])
        pair.ready()
    assert len(on_node(pair, "node2")) == 1


def on_node(pair: Room, node: str) -> list[str]:
    """The pods there."""
    return [pod["metadata"]["name"] for pod in pair.pods() if pod["spec"].get("nodeName") == node]


@contextmanager
def embedding(service: sdk.Service) -> Iterator[list[int]]:
    """Call after call in a thread of its own, while the block runs; the test fails by any error but a timeout."""
    made: list[int] = []
    wrong: list[BaseException] = []
    over = threading.Event()

    def call() -> None:
        try:
            while not over.wait(0.1):
                with suppress(TimedOut):
                    made.append(len(service.embed([f"text {len(made)}", "another"], timeout=CALL_SECONDS)))
        except BaseException as error:  # noqa: BLE001  # the test's thread tells
            wrong.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield made
    finally:
        over.set()
        thread.join(180)
    assert wrong == []
