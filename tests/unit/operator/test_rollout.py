"""A rollout surges, waits, drains first and surges again: decided from capacity and progress alone."""

from typing import Any

import pytest

from embedfleet.api import EmbeddingService
from embedfleet_operator.observed import Claim, Observed, Way, pods, server, workload
from embedfleet_operator.observed.capacity import Capacity
from embedfleet_operator.plan import Plan
from embedfleet_operator.rollout import Child, Progress, decide, leftovers, progress, touch, untouched
from tests.support import cluster_objects as objects

NO_GPU = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
NO_MATCH = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
SURGE: Way = "Surge"
DRAIN: Way = "DrainFirst"


@pytest.mark.requirement("O3")
@pytest.mark.parametrize(
    ("given", "plan"),
    [
        # nothing to roll out: back to surge, whatever was in force
        ({"is_rolling": False}, Plan(SURGE, "Settled")),
        ({"is_rolling": False, "way": DRAIN}, Plan(SURGE, "Settled")),
        ({"is_rolling": False, "waiting_seconds": 999}, Plan(SURGE, "Settled")),  # a scale-up without room
        # a new pod comes first
        ({}, Plan(SURGE, "Surging")),
        ({"waiting_seconds": 0}, Plan(SURGE, "WaitingForCapacity", look_again_seconds=300)),
        ({"waiting_seconds": 299}, Plan(SURGE, "WaitingForCapacity", look_again_seconds=1)),
        # no room for too long: blocked, and drained first where that is wanted and helps
        ({"waiting_seconds": 300}, Plan(DRAIN, "NoRoom", is_blocked=True)),
        ({"waiting_seconds": 0, "wait_seconds": 0}, Plan(DRAIN, "NoRoom", is_blocked=True)),
        ({"waiting_seconds": 300, "strategy": SURGE}, Plan(SURGE, "NoRoom", is_blocked=True)),
        ({"waiting_seconds": 300, "ever_fits": False}, Plan(SURGE, "NeverFits", is_blocked=True)),
        ({"waiting_seconds": 300, "lacks_room": False}, Plan(SURGE, "NeverFits", is_blocked=True)),
        # once draining, to the end of the rollout
        ({"way": DRAIN}, Plan(DRAIN, "NoRoom")),
        ({"way": DRAIN, "waiting_seconds": 10}, Plan(DRAIN, "NoRoom")),
        ({"way": DRAIN, "waiting_seconds": 300}, Plan(DRAIN, "NoRoom", is_blocked=True)),
        ({"way": DRAIN, "strategy": SURGE}, Plan(SURGE, "Surging")),  # the user has changed their mind
        # asked for, or forced by a volume that one node holds
        ({"strategy": DRAIN}, Plan(DRAIN, "AsAsked")),
        ({"strategy": DRAIN, "is_rolling": False}, Plan(DRAIN, "AsAsked")),
        ({"has_single_node_volume": True}, Plan(DRAIN, "SingleNodeVolume")),
        ({"has_single_node_volume": True, "strategy": SURGE}, Plan(DRAIN, "SingleNodeVolume")),
        ({"strategy": DRAIN, "waiting_seconds": 400}, Plan(DRAIN, "AsAsked", is_blocked=True)),
    ],
)
def test_the_way_is_decided(given: dict[str, Any], plan: Plan) -> None:
    """Each line of the table: capacity and progress in, the way and its reason out."""
    assert decide(Progress(**given)) == plan


def rolling(new: dict[str, Any], **deployment: Any) -> Observed:
    """A rollout from revision 1 to 2 with one new pod as given."""
    return objects.seen(
        apart=objects.deployment(revision="2", replicas=3, updated=1, **deployment),
        sets=[objects.replica_set("1"), objects.replica_set("2")],
        server_pods=[objects.pod("p-1"), objects.pod("p-2"), new],
    )


def read(found: Observed, **spec: Any) -> Progress:
    return progress(EmbeddingService.model_validate(objects.service(**spec)), found, objects.NOW)


@pytest.mark.requirement("O3")
def test_a_stalled_rollout_is_carried_through_and_the_next_one_surges() -> None:
    """From a new pod without room, over waiting and draining, to the end: the whole course, read off the cluster."""
    stuck = objects.pod("new", revision="2", ready=False, unschedulable=NO_GPU, since=10)
    waiting = decide(read(rolling(stuck)))
    assert waiting == Plan(SURGE, "WaitingForCapacity", look_again_seconds=290)
    stuck = objects.pod("new", revision="2", ready=False, unschedulable=NO_GPU, since=300)
    assert decide(read(rolling(stuck))) == Plan(DRAIN, "NoRoom", is_blocked=True)
    placed = objects.pod("new", revision="2", ready=False)
    assert decide(read(rolling(placed, surge=0))) == Plan(DRAIN, "NoRoom")
    over = objects.seen(apart=objects.deployment(surge=0))
    assert decide(read(over)) == Plan(SURGE, "Settled")


@pytest.mark.requirement("O3")
def test_draining_first_is_not_tried_where_it_cannot_help() -> None:
    """A selector that no node has, or a pod larger than any node: the old pods stay."""
    lost = objects.pod("new", revision="2", ready=False, unschedulable=NO_MATCH, since=400)
    assert decide(read(rolling(lost))) == Plan(SURGE, "NeverFits", is_blocked=True)
    large = objects.pod("new", revision="2", ready=False, unschedulable=NO_GPU, since=400)
    found = rolling(large)
    known = objects.seen(
        apart=objects.deployment(revision="2"),
        sets=[objects.replica_set("1"), objects.replica_set("2")],
        server_pods=[objects.pod("p-1"), large],
        capacity=Capacity(0, ever_fits=False),
    )
    assert decide(read(known)) == Plan(SURGE, "NeverFits", is_blocked=True)
    assert decide(read(found)).way == DRAIN


def test_a_first_start_and_a_scale_up_replace_nothing() -> None:
    """Pods without room are no rollout where there is no older template; neither is a service without pods."""
    stuck = [objects.pod("p-1", ready=False, unschedulable=NO_GPU, since=400)]
    assert not read(objects.seen(server_pods=stuck)).is_rolling
    assert not read(objects.seen(apart=objects.deployment(wanted=0))).is_rolling
    assert not progress(
        EmbeddingService.model_validate(objects.service()), Observed(service=objects.service()), objects.NOW
    ).is_rolling


@pytest.mark.requirement("O3")
def test_only_claims_that_the_pods_mount_force_a_drain() -> None:
    """A ReadWriteOnce cache does; one of the same kind that the spec does not name, or does not use, does not."""
    found = objects.seen(claims=(Claim("cache", ("ReadWriteOnce",)), Claim("other", ("ReadWriteOnce",))))
    cache = {"weights": {"cache": {"persistentVolumeClaim": "cache"}}}
    assert read(found, **cache).has_single_node_volume
    assert not read(found).has_single_node_volume
    unused = {"models": [{"name": "m", "source": {"path": "/m"}}], **cache}
    assert not read(found, **unused).has_single_node_volume
    volume = {"models": [{"name": "m", "source": {"volume": {"claimName": "other"}}}]}
    assert read(found, **volume).has_single_node_volume


@pytest.mark.requirement("O1")
def test_leftovers_are_what_nothing_names_any_more() -> None:
    """A policy that is switched off goes; a models' ConfigMap goes once no ReplicaSet mounts it."""
    live = [
        Child("ConfigMap", "semantic-models-new", "1"),
        Child("ConfigMap", "semantic-models-old", "2"),
        Child("ConfigMap", "semantic-models-older", "3"),
        Child("NetworkPolicy", "semantic", "4"),
        Child("Service", "semantic", "5"),
    ]
    wanted = [("ConfigMap", "semantic-models-new"), ("Service", "semantic")]
    sets = [workload.replica_set(objects.replica_set(config_map="semantic-models-old"))]
    assert [child.uid for child in leftovers(live, wanted, sets)] == ["3", "4"]


@pytest.mark.requirement("O2")
def test_pods_with_older_batching_values_are_touched_once() -> None:
    """Not those that run the newest values, that leave, or that have been touched for this generation already."""
    touched = objects.pod("touched")
    touched["metadata"] |= touch(7)["metadata"]
    given = [
        pods.pod(objects.pod("new"), server.server_state(objects.answer(7))),
        pods.pod(objects.pod("old"), server.server_state(objects.answer(6))),
        pods.pod(objects.pod("silent")),
        pods.pod(objects.pod("starting", ready=False)),
        pods.pod(objects.pod("leaving", leaving=True)),
        pods.pod(touched, server.server_state(objects.answer(6))),
    ]
    assert [pod.name for pod in untouched(given, 7)] == ["old", "silent"]
    assert [pod.name for pod in untouched(given, 8)] == ["new", "old", "silent", "touched"]
