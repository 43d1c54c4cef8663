"""Real Kubernetes for any test, as fixtures: one cluster of each size for the whole run, a namespace for each test.

A plugin of `tests/conftest.py`, so that all folders share the same clusters. A machine that cannot run one skips the
test with what it lacks.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster import machine
from tests.cluster.build import binaries
from tests.cluster.cluster import Cluster
from tests.cluster.errors import MachineLacks
from tests.conftest import HARDWARE

CRDS = Path(__file__).resolve().parents[2] / "crds"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A control plane without nodes: an API server, its controllers and a scheduler. Needs no root."""
    with running() as made:
        yield made


@pytest.fixture(scope="session")
def cluster_with_node() -> Iterator[Cluster]:
    """The same with a node, so that pods run."""
    with running(nodes=1) as made:
        yield made


@pytest.fixture(scope="session")
def contract(cluster: Cluster) -> Cluster:
    """`cluster` once it serves EmbeddingServices."""
    return with_contract(cluster)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of `cluster` for one test alone."""
    name = f"test-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@contextmanager
def running(nodes: int = 0, hollow: int = 0) -> Iterator[Cluster]:
    """A cluster of this size while it runs; skips the test where the machine lacks something for it."""
    require(nodes)
    with Cluster(nodes, hollow) as made:
        yield made


def with_contract(cluster: Cluster) -> Cluster:
    """`cluster` once it serves EmbeddingServices."""
    cluster.kubectl("apply", "--validate=strict", "-f", str(CRDS))
    cluster.kubectl("wait", "crd", "--all", "--for=condition=Established", "--timeout=60s")
    return cluster


def require(nodes: int = 0) -> None:
    """Skip the test where the machine cannot have a cluster with so many nodes; what can be set up is."""
    try:
        if nodes:
            machine.provide()
        binaries()
    except MachineLacks as lack:
        pytest.skip(str(lack) if lack.curable else f"{HARDWARE}{lack}")
