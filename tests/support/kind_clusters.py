"""A kind cluster for tests, with the images of this tree on its node."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.build import binaries
from tests.cluster.errors import MachineLacks
from tests.conftest import HARDWARE
from tests.kind.cluster import KindCluster, provide
from tests.support.images import Images


@contextmanager
def running_on_kind(images: Images, mounts: Mapping[str, Path]) -> Iterator[KindCluster]:
    """A cluster while it runs, whose node has `images` and sees the folders `mounts` (the path there, the path here).

    Skips the test where the machine lacks something for it.
    """
    try:
        provide()
        binaries("kind")
    except MachineLacks as lack:
        pytest.skip(str(lack) if lack.curable else f"{HARDWARE}{lack}")
    with KindCluster(images, mounts) as made:
        made.load_images(images)
        yield made
