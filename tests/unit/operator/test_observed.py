"""What is read from the API server's and the pods' answers, and that no answer is too odd to read."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedfleet.api.termination import Termination
from embedfleet_operator.observed import Ended, events, pods, server, snapshot, workload
from embedfleet_operator.observed.capacity import Capacity, capacity
from tests.support import cluster_objects as objects

GPU = "nvidia.com/gpu"


def test_a_deployment_is_read() -> None:
    """Counts, revision, digest and the way of rolling; the controller has seen the spec, or not."""
    found = workload.deployment(objects.deployment(replicas=3, ready=1, surge=0, revision="7", seen=False))
    assert (found.wanted, found.replicas, found.updated, found.ready) == (2, 3, 2, 1)
    assert (found.way, found.revision, found.rendered) == ("DrainFirst", "7", objects.RENDERED)
    assert not found.is_seen
    assert workload.deployment(objects.deployment()).is_rolled_out


def test_the_current_replica_set_splits_new_pods_from_old_ones() -> None:
    """New pods are of the ReplicaSet with the Deployment's revision, and stay; old ones are of others."""
    found = objects.seen(
        apart=objects.deployment(revision="2"),
        sets=[objects.replica_set("1"), objects.replica_set("2")],
        server_pods=[
            objects.pod("old"),
            objects.pod("new", revision="2"),
            objects.pod("b", revision="2", leaving=True),
        ],
    )
    assert [pod.name for pod in found.new_pods] == ["new"]
    assert [pod.name for pod in found.old_pods] == ["old"]


def test_until_the_controller_has_seen_the_spec_all_pods_are_old() -> None:
    """A Deployment whose controller lags says nothing of the newest template."""
    found = objects.seen(apart=objects.deployment(seen=False))
    assert found.current is None
    assert (len(found.new_pods), len(found.old_pods)) == (0, 2)


def test_a_pod_is_read_with_its_containers() -> None:
    """States, reasons, the way a container ended before, and what the server answered."""
    init = [objects.ended("Error", '{"code": "HubRefused", "message": "401", "model": "m"}', name="fetch")]
    found = pods.pod(objects.pod(ready=False, init=init), server.server_state(objects.answer(3)))
    fetch, running = found.containers
    assert (fetch.name, fetch.is_init, fetch.state, fetch.reason) == ("fetch", True, "Waiting", "CrashLoopBackOff")
    assert fetch.ended is not None
    assert fetch.ended.termination == Termination(code="HubRefused", message="401", model="m")
    assert (running.name, running.state, running.ended) == ("server", "Running", None)
    assert found.server is not None
    assert (found.server.generation, found.server.models[0].dimensions) == (3, 384)
    assert not found.is_ready


def test_the_end_of_a_log_is_no_termination() -> None:
    """What is not the server's own line is kept as words."""
    assert Ended(1, "Error", "Traceback (most recent call last): …").termination is None
    assert Ended(1, "Error", '{"code": "Other", "message": "x"}').termination is None


def test_config_maps_of_old_replica_sets_are_known() -> None:
    """Those in projected volumes and those mounted alone."""
    tree = objects.replica_set(config_map="a")
    tree["spec"]["template"]["spec"]["volumes"].append({"name": "x", "configMap": {"name": "b"}})
    assert workload.replica_set(tree).config_maps == {"a", "b"}


def test_events_of_both_apis_are_read() -> None:
    """`v1` and `events.k8s.io/v1` name the same things differently."""
    new = {
        "regarding": {"uid": "u"},
        "reason": "FailedMount",
        "note": "no",
        "type": "Warning",
        "series": {"lastObservedTime": "2026-01-01T12:00:00.5Z"},
    }
    assert events.event(new) == events.Event(
        "u", "FailedMount", "no", is_warning=True, last=datetime(2026, 1, 1, 12, 0, 0, 500_000, tzinfo=UTC)
    )
    assert events.event(objects.event("u", "FailedMount", "no")).message == "no"


@pytest.mark.requirement("O5")
def test_an_object_of_a_newer_version_is_told_and_not_fatal() -> None:
    """What the API server adds is no obstacle; a field or an API version that this operator does not know is named."""
    stored = objects.service()
    stored["metadata"] |= {"managedFields": [], "resourceVersion": "7", "annotations": {"a": "b"}}
    stored["status"] = {"phase": "of an older operator"}
    service, problems = snapshot.spec(stored)
    assert service is not None
    assert problems == ()
    for newer in ({"spec": {**stored["spec"], "autoscaling": {}}}, {"apiVersion": "embedfleet.dev/v2"}):
        service, problems = snapshot.spec(stored | newer)
        assert service is None
        assert "autoscaling" in problems[0] or "v2" in problems[0]


def test_secrets_are_read_without_their_values() -> None:
    """Only which keys have a value; one that is not there is told apart from an empty one."""
    found = snapshot.secret("s", {"data": {"a": "c2VjcmV0", "b": ""}})
    assert found == snapshot.Secret("s", exists=True, keys=frozenset("a"), empty_keys=frozenset("b"))
    assert "c2VjcmV0" not in repr(found)
    assert not snapshot.secret("s", None).exists


@pytest.mark.parametrize(
    ("modes", "single"),
    [
        (["ReadWriteOnce"], True),
        (["ReadWriteOncePod"], True),
        (["ReadWriteMany"], False),
        (["ReadOnlyMany"], False),
        ([], False),
    ],
)
def test_a_claim_of_one_node_is_told(modes: list[str], single: bool) -> None:
    """What the volume offers, else what the claim asks for."""
    assert snapshot.claim({"metadata": {"name": "c"}, "spec": {"accessModes": modes}}).is_single_node is single


def node(name: str, gpus: object, *, ready: str = "True", cordoned: bool = False) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": ready}]
    return {
        "metadata": {"name": name},
        "spec": {"unschedulable": cordoned},
        "status": {"allocatable": {GPU: gpus}, "conditions": conditions},
    }


def taker(where: str, gpus: str, phase: str = "Running") -> dict[str, Any]:
    container = {"resources": {"limits": {GPU: gpus}}}
    return {"spec": {"nodeName": where, "containers": [container]}, "status": {"phase": phase}}


@pytest.mark.requirement("O3")
@pytest.mark.parametrize(
    ("nodes", "pods_", "count", "room"),
    [
        ([node("a", "4")], [taker("a", "3")], 1, Capacity(1, ever_fits=True)),
        ([node("a", "4")], [taker("a", "3")], 2, Capacity(0, ever_fits=True)),
        ([node("a", "1"), node("b", "1")], [], 2, Capacity(0, ever_fits=False)),
        ([node("a", "2"), node("b", "5")], [taker("b", "1")], 2, Capacity(3, ever_fits=True)),
        ([node("a", "4")], [taker("a", "4", "Succeeded")], 4, Capacity(1, ever_fits=True)),
        ([node("a", "4", ready="False"), node("b", "4", cordoned=True)], [], 1, Capacity(0, ever_fits=False)),
        ([node("a", "many")], [], 1, Capacity(0, ever_fits=False)),
        ([node("a", "4")], [], 0, Capacity()),
    ],
)
def test_capacity_counts_devices(nodes: list[Any], pods_: list[Any], count: int, room: Capacity) -> None:
    """Free devices node by node, whatever other nodes have; cordoned and lost nodes have none."""
    assert capacity(nodes, pods_, GPU, count) == room


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "metadata",
                    "spec",
                    "status",
                    "conditions",
                    "containerStatuses",
                    "state",
                    "waiting",
                    "models",
                    "data",
                    "name",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["metadata", "spec", "status", "models", "data", "generation"]), JSON))
def test_no_answer_is_too_odd_to_read(tree: dict[str, Any]) -> None:
    """Missing and ill-typed fields give a value without them, never an exception."""
    workload.deployment(tree)
    workload.replica_set(tree)
    pods.pod(tree, server.server_state(tree))
    events.event(tree)
    snapshot.claim(tree)
    snapshot.secret("s", tree)
    capacity([tree], [tree], GPU, 1)
