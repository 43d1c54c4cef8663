"""A namespace of a real API server that serves EmbeddingServices."""

from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.support.operators import Place

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def contract(cluster: Cluster) -> Cluster:
    """`cluster` once it serves EmbeddingServices."""
    cluster.kubectl("apply", "--validate=strict", "-f", str(ROOT / "crds"))
    cluster.kubectl("wait", "crd", "--all", "--for=condition=Established", "--timeout=60s")
    return cluster


@pytest.fixture
def place(contract: Cluster, namespace: str) -> Place:
    """A namespace for one test alone."""
    return Place(contract, namespace)
