"""A cluster with the product installed by helm, for all end to end tests: one cluster, one release."""

import secrets
from collections.abc import Iterator

import pytest

from tests.support.grounds import Ground, ground
from tests.support.images import Images
from tests.support.keepers import Keepers, keepers
from tests.support.releases import Installed, release
from tests.support.rooms import Room, room


@pytest.fixture(scope="session")
def stage(images: Images) -> Iterator[Ground]:
    """The cluster: that of EMBEDFLEET_E2E_KUBECONFIG, or one of two nodes."""
    with ground(images) as made:
        yield made


@pytest.fixture(scope="session")
def installed(stage: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The chart's release."""
    with release(stage, tmp_path_factory.mktemp("helm")) as made:
        yield made


@pytest.fixture(scope="session")
def kept(stage: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keepers]:
    """Weights on every node, and a place for journals."""
    with keepers(stage, f"e2e-keepers-{secrets.token_hex(4)}", tmp_path_factory.mktemp("weights")) as made:
        yield made


@pytest.fixture(scope="module")
def place(installed: Installed, kept: Keepers) -> Iterator[Room]:
    """A room for the services of one module."""
    with room(installed.ground, kept) as made:
        yield made
