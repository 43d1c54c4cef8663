"""Hollow nodes: as many as a test of numbers needs, at next to no cost."""

import json
from collections.abc import Iterator

import pytest

from tests.cluster.cluster import Cluster
from tests.support.clusters import running

COUNT = 100


@pytest.fixture(scope="module")
def hollow() -> Iterator[Cluster]:
    """A control plane with 100 hollow nodes."""
    with running(hollow=COUNT) as made:
        yield made


def test_all_are_ready(hollow: Cluster) -> None:
    """A cluster that was asked for 100 hollow nodes has them all Ready."""
    rows = hollow.kubectl("get", "nodes", "--no-headers").splitlines()
    assert [row.split()[1] for row in rows] == ["Ready"] * COUNT


def test_pods_become_ready_on_them(hollow: Cluster) -> None:
    """300 pods of one GPU each are spread and become available, though nothing runs."""
    limits = {"containers": [{"name": "server", "image": "any", "resources": {"limits": {"nvidia.com/gpu": 1}}}]}
    labels = {"app": "many"}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "many"},
        "spec": {
            "replicas": 300,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": limits},
        },
    }
    hollow.kubectl("apply", "-f", "-", stdin=json.dumps(deployment))
    hollow.kubectl("rollout", "status", "deployment/many", "--timeout=120s")
    placed = hollow.kubectl("get", "pods", "-o", "jsonpath={.items[*].spec.nodeName}").split()
    assert len(placed) == 300
    assert max(placed.count(node) for node in placed) <= 8
