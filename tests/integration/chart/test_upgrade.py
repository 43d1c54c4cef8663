"""An upgrade of the chart brings the new CRD and the new operator, and leaves services and their pods alone."""

import json
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.errors import CommandFailed
from tests.support.charts import CRD, ROOT, Helm, Plain, copied, spec_fields, without_field
from tests.support.operators import Place, until, working

pytestmark = pytest.mark.requirement("O6")
FIELD = "suspend"
"""Optional, and not there in the chart that plays the previous version."""


@pytest.fixture
def previous(helm: Helm, tmp_path: Path) -> Path:
    """The package of a version before: none has been published yet, so it is the chart of now with an older CRD."""
    folder = without_field(copied(tmp_path, "0.0.9", "0.0.9"), FIELD)
    helm.run("package", str(folder), "--destination", str(tmp_path))
    return tmp_path / "embedfleet-0.0.9.tgz"


@pytest.mark.requirement("O2")
def test_an_upgrade_brings_the_crd_and_touches_no_pod(
    releases: Helm, ground: Cluster, home: str, previous: Path
) -> None:
    """After the upgrade the CRD has the new field, and the service, its Deployment and its pods are those from before,
    with the next operator at work on them.
    """
    place = Place(ground, home)
    releases.install({"watchNamespaces": [home]}, chart=previous)
    assert FIELD not in spec_fields(place.get("crd", CRD))
    place.apply(image=None)
    with working(place, server_image=server_image(place)):
        place.settled()
    before = uids(place)
    releases.upgrade()
    until(lambda: FIELD in spec_fields(place.get("crd", CRD)))
    with working(place, server_image=server_image(place)):
        place.apply(image=None, batching={"maxBatchSize": 7})
        place.settled()
    assert {kind for kind, _ in before} == {"EmbeddingService", "Deployment", "ReplicaSet", "Pod"}
    assert uids(place) == before


def test_the_operator_itself_is_replaced(releases: Helm, ground: Cluster, home: str, previous: Path) -> None:
    """The operator's image follows the chart, whatever the server's does."""
    place = Place(ground, home)
    releases.install(chart=previous)
    assert operator(place)["image"] == "embedfleet/operator:0.0.9"
    releases.upgrade()
    assert operator(place)["image"] == "embedfleet/operator:0.1.0"


def test_the_servers_image_changes_when_it_is_said(releases: Helm, ground: Cluster, home: str, previous: Path) -> None:
    """An upgrade keeps the server's tag and names the newer one; a tag, a repository or followChart change it."""
    place = Place(ground, home)
    releases.install(chart=previous)
    notes = releases.upgrade()
    assert server_image(place) == "embedfleet/server:0.0.9"
    assert "This chart goes with embedfleet/server:0.1.0" in notes
    assert "--set serverImage.tag=0.1.0" in notes
    releases.upgrade({"serverImage.followChart": True})
    assert server_image(place) == "embedfleet/server:0.1.0"
    releases.upgrade({"serverImage.repository": "mirror.example:5000/server"})
    assert server_image(place) == "mirror.example:5000/server:0.1.0"
    assert "This chart goes with" not in releases.upgrade({"serverImage.tag": "0.0.8"})
    assert server_image(place) == "mirror.example:5000/server:0.0.8"


def test_a_leader_keeps_its_lease(releases: Helm, ground: Cluster, home: str) -> None:
    """The Lease belongs to the release, what stands in it to the operator: an upgrade leaves the holder there."""
    place = Place(ground, home)
    releases.install()
    place.patch("lease", "embedfleet-operator", {"spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 15}})
    releases.upgrade({"replicas": 1})
    assert place.get("lease", "embedfleet-operator")["spec"]["holderIdentity"] == "somebody"


def test_a_crd_of_somebody_else_is_taken_over_when_asked(releases: Helm, ground: Cluster) -> None:
    """A CRD that kubectl applied is not silently taken: Helm refuses, and `--take-ownership` does it."""
    ground.kubectl("apply", "-f", str(ROOT / "crds"))
    with pytest.raises(CommandFailed, match=r"invalid ownership metadata"):
        releases.install()
    releases.run("install", "embedfleet", str(ROOT / "charts" / "embedfleet"), "--take-ownership")


def operator(place: Place) -> Plain:
    """The operator's container, as installed."""
    (container,) = place.get("deployment", "embedfleet-operator")["spec"]["template"]["spec"]["containers"]
    found: Plain = container
    return found


def server_image(place: Place) -> str:
    """What the installed operator is told."""
    (found,) = [each for each in operator(place)["args"] if each.startswith("--server-image=")]
    image: str = found.removeprefix("--server-image=")
    return image


def uids(place: Place) -> dict[tuple[str, str], str]:
    """The service, its Deployment and what came of that, each by kind and name."""
    found = place.all("deployments,replicasets,pods") + json.loads(place.kubectl("get", "embed", "-o", "json"))["items"]
    return {(one["kind"], one["metadata"]["name"]): one["metadata"]["uid"] for one in found}
