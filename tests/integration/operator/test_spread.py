"""Where a real scheduler puts the pods of a service: nodes are pretended, and some of them are half full already."""

import json
from collections.abc import Iterator

import pytest

from embedfleet.api import EmbeddingService
from embedfleet_operator import render
from tests.cluster.cluster import Cluster
from tests.support.clusters import running

pytestmark = pytest.mark.requirement("O1")
ZONE = "topology.kubernetes.io/zone"
SITE = render.Site(server_image="registry.example/embedfleet-server:1")
FULL = {"hollow2": 16, "hollow3": 32}
"""Cores of 64 that something else has: left to itself the scheduler would put everything on the first node."""


@pytest.fixture(scope="module")
def hollow() -> Iterator[Cluster]:
    """Three nodes without zones."""
    with running(hollow=3) as made:
        for node, cores in FULL.items():
            ballast = {"name": "ballast", "image": "any", "resources": {"requests": {"cpu": str(cores)}}}
            pod = {"metadata": {"name": f"ballast-{node}"}, "spec": {"nodeName": node, "containers": [ballast]}}
            made.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Pod", **pod}))
        yield made


def placed(hollow: Cluster, name: str, replicas: int) -> list[str]:
    """The nodes of a service's pods, sorted."""
    model = {"name": "m", "source": {"path": "/weights/m"}}
    given = {
        "apiVersion": "embedfleet.dev/v1alpha1",
        "kind": "EmbeddingService",
        "metadata": {"name": name, "namespace": "default", "uid": "00000000-0000-4000-8000-000000000001"},
        "spec": {"models": [model], "replicas": replicas, "gpu": {"count": 0}},
    }
    objects = render.objects(EmbeddingService.model_validate(given), SITE)
    wanted = [one for one in objects if one["kind"] in ("ServiceAccount", "Deployment")]
    for one in wanted:
        del one["metadata"]["ownerReferences"]  # nobody made the service itself
    hollow.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": wanted}))
    hollow.kubectl("rollout", "status", f"deployment/{name}", "--timeout=120s")
    label = f"embedfleet.dev/service={name}"
    return sorted(hollow.kubectl("get", "pods", "-l", label, "-o", "jsonpath={.items[*].spec.nodeName}").split())


def test_nodes_without_zones_are_spread_over(hollow: Cluster) -> None:
    """Each of three pods is on a node of its own, though one node has more room than the others."""
    assert placed(hollow, "flat", 3) == ["hollow1", "hollow2", "hollow3"]


def test_zones_come_first_where_there_are_any(hollow: Cluster) -> None:
    """Of two pods one is in the other zone, though there the node is the fullest."""
    for node, zone in {"hollow1": "a", "hollow2": "a", "hollow3": "b"}.items():
        hollow.kubectl("label", "node", node, f"{ZONE}={zone}")
    assert "hollow3" in placed(hollow, "zoned", 2)
