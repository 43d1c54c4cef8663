"""A cluster that knows other types than the operator does: none yet, or newer ones."""

import json

import pytest

from tests.cluster.cluster import Cluster
from tests.support.clusters import with_contract
from tests.support.operators import Place, until, working

CRD = "embeddingservices.embedfleet.dev"
FIELD = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/novel"


@pytest.mark.requirement("O5", "O7")
def test_a_type_that_comes_late(bare: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """An operator that starts before the CRD is there says so and waits; afterwards it hears of services as any other
    does, long before the resync.
    """
    bare.kubectl("delete", "crd", CRD, "--ignore-not-found")
    place = Place(bare, "default", "late")
    with working(place, resync_seconds=600):
        until(lambda: "apply the CRD" in caplog.text)
        with_contract(bare)
        place.apply(replicas=1)
        place.settled()
        place.apply(replicas=2)
        until(lambda: place.get("deployment")["spec"]["replicas"] == 2)
    place.kubectl("delete", "embed", place.name)


@pytest.mark.requirement("O5", "O7")
def test_an_object_of_a_newer_version(lone_place: Place) -> None:
    """A field that this operator does not know is named in a condition while the pods stay and other services are
    looked after; without the field all goes on.
    """
    place, other = lone_place, Place(lone_place.cluster, lone_place.namespace, "other")
    change_type(place, {"op": "add", "path": FIELD, "value": {"type": "string"}})
    try:
        with working(place):
            place.apply()
            place.settled()
            before = place.get("deployment")["spec"]
            place.apply(novel="x", replicas=1)
            until(lambda: place.condition()["reason"] == "NewerVersion")
            assert "novel" in place.condition()["message"]
            assert place.condition()["observedGeneration"] == 2
            other.apply(replicas=1)
            other.settled()
            assert place.get("deployment")["spec"] == before
            place.apply(replicas=1)
            until(lambda: place.get("deployment")["spec"]["replicas"] == 1)
            until(lambda: place.condition()["reason"] == "Unschedulable")
    finally:
        change_type(place, {"op": "remove", "path": FIELD})


def change_type(place: Place, change: dict[str, object]) -> None:
    """Patch the CRD, and return once the API server goes by it."""
    place.cluster.kubectl("patch", "crd", CRD, "--type=json", "-p", json.dumps([change]))
    is_there = change["op"] == "add"
    until(lambda: ("novel" in place.cluster.kubectl("explain", "embed.spec")) == is_there)
