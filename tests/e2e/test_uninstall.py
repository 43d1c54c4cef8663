"""The last of the end to end tests: the product is taken away again. Its name sorts behind the others'."""

import json

import pytest

from tests.support.charts import CRD
from tests.support.operators import until
from tests.support.releases import SYSTEM, Installed
from tests.support.rooms import PATIENCE, Room, spec_of


@pytest.mark.requirement("O6")
def test_uninstall_leaves_nothing_stuck(installed: Installed, place: Room) -> None:
    """`helm uninstall` takes the operator and keeps the services: pods go on. What is deleted after that goes at once,
    services, CRD and namespace, since nothing waits for an operator.
    """
    place.apply(spec_of())
    place.ready()
    before = place.uids()
    installed.helm.uninstall()
    assert installed.operators() == {}
    assert place.uids() == before
    place.kubectl("delete", "embed", place.name, f"--timeout={PATIENCE}s")
    until(lambda: place.pods() == [], PATIENCE)
    installed.ground.kubectl("delete", "crd", CRD, f"--timeout={PATIENCE}s")
    installed.ground.kubectl("delete", "namespace", SYSTEM, f"--timeout={PATIENCE}s")
    left = json.loads(installed.ground.kubectl("get", "clusterroles,clusterrolebindings", "-o", "json"))["items"]
    assert [one["metadata"]["name"] for one in left if "embedfleet" in one["metadata"]["name"]] == []
