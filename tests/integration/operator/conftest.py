"""A namespace of a real API server that serves EmbeddingServices."""

import secrets
from collections.abc import Iterator

import pytest

from tests.cluster.cluster import Cluster
from tests.support.clusters import running
from tests.support.honesty import assert_honest
from tests.support.operators import Place, serve


@pytest.fixture(scope="session")
def contract(cluster: Cluster) -> Iterator[Cluster]:
    """`cluster` once it serves EmbeddingServices; at the end each status that was written there is judged."""
    serve(cluster)
    yield cluster
    assert_honest(cluster)


@pytest.fixture(scope="session")
def bare() -> Iterator[Cluster]:
    """Another cluster, whose types of objects a test may change; not every test finds EmbeddingServices there."""
    with running() as made:
        yield made
        assert_honest(made)


@pytest.fixture
def place(contract: Cluster, namespace: str) -> Place:
    """A namespace for one test alone."""
    return Place(contract, namespace)


@pytest.fixture
def lone_place(bare: Cluster) -> Iterator[Place]:
    """The same in `bare`, which serves EmbeddingServices by then."""
    serve(bare)
    name = f"test-{secrets.token_hex(4)}"
    bare.kubectl("create", "namespace", name)
    yield Place(bare, name)
    bare.kubectl("delete", "namespace", name, "--wait=false")
