"""The children of a service on a real API server: made, owned, repaired, collected."""

from typing import Any

import pytest

from embedfleet_operator import names
from tests.support.operators import CHILDREN, Place, until, working

KINDS = {"ServiceAccount", "ConfigMap", "Service", "PodDisruptionBudget", "NetworkPolicy", "Deployment"}


@pytest.mark.requirement("O1", "O4")
def test_a_service_gets_its_children(place: Place) -> None:
    """Each child is there, owned by the service; the status is about the newest spec and tells the cause."""
    with working(place) as operator:
        place.apply()
        service = place.settled()
        found = place.all(CHILDREN)
        until(lambda: place.condition()["reason"] == "Unschedulable")
    assert {one["kind"] for one in found} == KINDS
    owners = [one["metadata"]["ownerReferences"][0] for one in found]
    assert {(owner["uid"], owner["controller"]) for owner in owners} == {(service["metadata"]["uid"], True)}
    assert service["status"]["observedGeneration"] == service["metadata"]["generation"]
    assert {one["observedGeneration"] for one in service["status"]["conditions"]} == {1}
    assert service["status"]["url"] == f"http://semantic.{place.namespace}.svc:8080"
    told = [one["reason"] for one in place.all_events()]
    assert len(told) == len(set(told))
    assert {"Applying", "Unschedulable"} <= set(told)
    assert operator.user not in str(service["metadata"].get("annotations"))


@pytest.mark.requirement("O1")
def test_the_users_object_stays_the_users(place: Place) -> None:
    """The operator adds no finalizer, annotation or label to the object that the user applied."""
    with working(place):
        before = place.apply()["metadata"]
        after = place.settled()["metadata"]
    assert "finalizers" not in after
    assert after["annotations"].keys() == before["annotations"].keys()
    assert "labels" not in after
    ours = [one for one in after["managedFields"] if one["manager"] == names.MANAGER]
    assert {one.get("subresource") for one in ours} == {"status"}


@pytest.mark.requirement("O1")
def test_an_edited_child_is_repaired(place: Place) -> None:
    """Whatever is changed of what was rendered is put back; the label by which children are found is too."""
    edits: dict[str, dict[str, Any]] = {
        "serviceaccount": {"automountServiceAccountToken": True},
        "configmap/semantic-batching": {"data": {"batching.json": "{}"}},
        "service": {"spec": {"selector": {"somebody": "else"}}},
        "poddisruptionbudget": {"spec": {"maxUnavailable": 0}},
        "networkpolicy": {"spec": {"egress": [], "ingress": []}},
        "deployment": {"spec": {"replicas": 7}},
    }
    with working(place):
        place.apply()
        place.settled()
        before = {target: content(place, target) for target in edits}
        for target, edit in edits.items():
            kind, _, name = target.partition("/")
            place.patch(kind, name or place.name, {**edit, "metadata": {"labels": {names.SERVICE_LABEL: None}}})
        for target in edits:
            until(lambda target=target: content(place, target) == before[target])  # type: ignore[misc]


@pytest.mark.requirement("O1")
def test_a_deleted_child_is_made_anew(place: Place) -> None:
    """Each child that somebody deletes comes back as it was."""
    with working(place):
        place.apply()
        place.settled()
        before = {(one["kind"], one["metadata"]["name"]): one["metadata"]["uid"] for one in place.all(CHILDREN)}
        place.kubectl("delete", CHILDREN, "-l", f"{names.SERVICE_LABEL}=semantic", "--wait=false")
        until(lambda: same_names_new_uids(place, before))


def same_names_new_uids(place: Place, before: dict[tuple[str, str], str]) -> bool:
    """Whether every child is there again, and is another object."""
    after = {(one["kind"], one["metadata"]["name"]): one["metadata"]["uid"] for one in place.all(CHILDREN)}
    return after.keys() == before.keys() and not set(after.values()) & set(before.values())


@pytest.mark.requirement("O7")
def test_fields_of_others_survive(place: Place) -> None:
    """What somebody else has put beside the rendered fields stays through later changes of the spec."""
    with working(place):
        place.apply()
        place.settled()
        place.patch(
            "deployment", place.name, {"metadata": {"annotations": {"team": "search"}}, "spec": {"minReadySeconds": 3}}
        )
        place.apply(replicas=3)
        until(lambda: place.get("deployment")["spec"]["replicas"] == 3)
        deployment = place.get("deployment")
    assert deployment["spec"]["minReadySeconds"] == 3
    assert deployment["metadata"]["annotations"]["team"] == "search"


@pytest.mark.requirement("O1", "O6")
def test_a_deleted_service_takes_its_children_along(place: Place) -> None:
    """Kubernetes collects the children by their owner references, and nothing makes them anew."""
    with working(place):
        place.apply()
        place.settled()
        place.kubectl("delete", "embed", place.name)
        until(lambda: not place.all(CHILDREN + ",replicasets,pods"))


def test_a_suspended_service_has_no_pods(place: Place) -> None:
    """`suspend` takes the pods away and says so; without it they come back."""
    with working(place):
        place.apply()
        place.settled()
        place.apply(suspend=True)
        until(lambda: place.condition()["reason"] == "Suspended" and not place.pods())
        place.apply()
        until(lambda: len(place.pods()) == 2)


@pytest.mark.requirement("O5")
def test_somebody_elses_object_is_left_alone(place: Place) -> None:
    """An object that has a child's name stays as it is, a condition names it, and once it is gone all goes on."""
    place.kubectl("create", "serviceaccount", place.name)
    before = place.get("serviceaccount")
    with working(place, resync_seconds=1):
        place.apply()
        until(lambda: place.condition()["reason"] == "NameTaken")
        assert place.get("serviceaccount") == before
        assert "ServiceAccount semantic" in place.condition()["message"]
        place.kubectl("delete", "serviceaccount", place.name)
        place.settled()


def test_what_is_no_longer_asked_for_goes(place: Place) -> None:
    """A child that the spec no longer asks for is deleted."""
    with working(place):
        place.apply()
        place.settled()
        place.apply(network={"enabled": False})
        until(lambda: not place.all("networkpolicies"))


def content(place: Place, target: str) -> object:
    """An object without what the API server keeps of it, nor what others say in it."""
    kind, _, name = target.partition("/")
    found = place.get(kind, name or place.name)
    labels = found["metadata"].get("labels")
    return {key: value for key, value in found.items() if key not in ("metadata", "status")} | {"labels": labels}
