"""After `helm uninstall` nothing is stuck; whether services stay is a value."""

import json

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.errors import CommandFailed
from tests.support.charts import CRD, Helm
from tests.support.operators import Place, until, working

pytestmark = pytest.mark.requirement("O6")
CHILDREN = "deployments,replicasets,pods,services,configmaps,serviceaccounts,poddisruptionbudgets,networkpolicies"


@pytest.fixture
def place(ground: Cluster, home: str) -> Place:
    """A service's place in the release's namespace."""
    return Place(ground, home)


def serve(place: Place) -> None:
    """A service with all its children, and the operator gone again."""
    place.apply()
    with working(place):
        place.settled()


def collected(place: Place) -> None:
    """Wait until Kubernetes collects what services own.

    Its garbage collector looks for new types every 30 s. A type that comes and goes between two looks is never known
    to it, and what such objects owned stays for good.
    """
    first = Place(place.cluster, place.namespace, "first")
    owner = {"apiVersion": "embedfleet.dev/v1alpha1", "kind": "EmbeddingService", "name": first.name}
    owned = {"name": "owned", "ownerReferences": [{**owner, "uid": first.apply()["metadata"]["uid"]}]}
    place.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": owned}))
    place.kubectl("delete", "embed", first.name)
    until(lambda: not place.kubectl("get", "configmap", "owned", "--ignore-not-found"), seconds=120)


def left(place: Place, manifest: str) -> set[str]:
    """What is still there of the objects of `manifest`, as `type/name`."""
    return set(place.kubectl("get", "--ignore-not-found", "-o", "name", "-f", "-", stdin=manifest).split())


def test_services_stay_by_default(releases: Helm, place: Place) -> None:
    """Of the release only the CRD is left, and with it every service and its pods, as they were; the same release
    installed again goes on with them.
    """
    releases.install({"watchNamespaces": [place.namespace]})
    serve(place)
    before = {one["metadata"]["uid"] for one in [place.get("embed"), *place.all(CHILDREN)]}
    manifest = releases.run("get", "manifest", "embedfleet")
    releases.uninstall()
    assert left(place, manifest) == {f"customresourcedefinition.apiextensions.k8s.io/{CRD}"}
    releases.install({"watchNamespaces": [place.namespace]})
    with working(place):
        place.apply(batching={"maxBatchSize": 7})
        place.settled()
    assert {one["metadata"]["uid"] for one in [place.get("embed"), *place.all(CHILDREN)]} == before


def test_all_goes_when_asked(releases: Helm, place: Place) -> None:
    """With crds.keep=false the CRD goes, every service with it, and Kubernetes collects their children: no finalizer
    waits for the operator, which is gone.
    """
    releases.install({"watchNamespaces": [place.namespace], "crds.keep": False})
    collected(place)
    serve(place)
    manifest = releases.run("get", "manifest", "embedfleet")
    releases.uninstall()
    assert left(place, manifest) == set()
    until(lambda: not place.all(CHILDREN), seconds=120)
    with pytest.raises(CommandFailed, match=r"could not find the requested resource|have a resource type"):
        place.get("embed")


def test_the_choice_can_be_changed_afterwards(releases: Helm, place: Place) -> None:
    """A release told to bring the CRD no more leaves it where it is; one told not to keep it takes it along."""
    releases.install()
    releases.upgrade({"crds.install": False})
    assert place.get("crd", CRD)
    releases.upgrade({"crds.install": True, "crds.keep": False})
    releases.uninstall()
    with pytest.raises(CommandFailed, match="NotFound"):
        place.get("crd", CRD)


def test_what_the_operator_makes_for_itself_goes_too(releases: Helm, place: Place) -> None:
    """The Lease, which an operator would make where none is, is the release's."""
    releases.install({"watchNamespaces": [place.namespace]})
    with working(place):
        held = "{.spec.holderIdentity}"
        until(lambda: place.kubectl("get", "lease", "embedfleet-operator", "-o", f"jsonpath={held}"))
    releases.uninstall()
    assert place.kubectl("get", "leases", "-o", "name") == ""
