"""A namespace of a real API server that serves EmbeddingServices."""

import gc
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.support.clusters import running, with_contract
from tests.support.honesty import assert_honest
from tests.support.operators import Place

_LEFT_BY_KOPF = (
    "ignore:Exception ignored in. <(socket|ssl|function _Selector|function _SSL|async_generator|coroutine)"
    ":pytest.PytestUnraisableExceptionWarning"
)
"""kopf's watches, when they end by an error, leave streams to the garbage collector; here kopf runs in this process."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let what kopf leaves open be found within these tests, and be no error there."""
    for item in items:
        if item.path.parent == _HERE:
            item.add_marker(pytest.mark.filterwarnings(_LEFT_BY_KOPF))


_HERE = Path(__file__).parent


@pytest.fixture(autouse=True, scope="module")
def _collected() -> Iterator[None]:
    """Nothing of one module is left for tests of another folder to be blamed for."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def contract(cluster: Cluster) -> Iterator[Cluster]:
    """`cluster` once it serves EmbeddingServices; at the end each status that was written there is judged."""
    yield with_contract(cluster)
    assert_honest(cluster)


@pytest.fixture(scope="session")
def bare() -> Iterator[Cluster]:
    """Another cluster, whose types of objects a test may change; not every test finds EmbeddingServices there."""
    with running() as made:
        yield made
        assert_honest(made)


@pytest.fixture(scope="session")
def hollow() -> Iterator[Cluster]:
    """A cluster that serves EmbeddingServices, with two nodes that kwok pretends: pods are placed and become ready."""
    with running(hollow=2) as made:
        yield with_contract(made)
        assert_honest(made)


@pytest.fixture
def place(contract: Cluster, namespace: str) -> Place:
    """A namespace for one test alone."""
    return Place(contract, namespace)


@pytest.fixture
def lone_place(bare: Cluster) -> Iterator[Place]:
    """The same in `bare`, which serves EmbeddingServices by then."""
    yield from _place(with_contract(bare))


@pytest.fixture
def hollow_place(hollow: Cluster) -> Iterator[Place]:
    """The same in `hollow`."""
    yield from _place(hollow)


def _place(cluster: Cluster) -> Iterator[Place]:
    name = f"test-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", name)
    yield Place(cluster, name)
    cluster.kubectl("delete", "namespace", name, "--wait=false")
