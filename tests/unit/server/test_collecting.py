"""Garbage is collected between batches, never by itself within one."""

import gc
from collections.abc import Iterator

import pytest

from embedfleet_server.app.collecting import Collecting

pytestmark = pytest.mark.requirement("A4")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


def test_nothing_is_collected_by_itself_while_serving() -> None:
    """From start to stop the collector is off; what is loaded is frozen, so that no collection looks at it."""
    collecting = Collecting()
    collecting.start()
    kept = [[number] for number in range(1000)]
    collecting.loaded("semantic")
    assert not gc.isenabled()
    assert gc.get_freeze_count() > 1000
    assert not any(found is kept for found in gc.get_objects())
    collecting.stop()
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_between_batches_the_young_are_collected_once_there_are_enough() -> None:
    """Below 20,000 objects nothing is done; from then on the young, and at every fiftieth time all."""
    made, done = [0], []

    def collect(generation: int) -> int:
        done.append(generation)
        made[0] = 0
        return 0

    collecting = Collecting(collect, lambda: made[0])
    for _ in range(1000):
        made[0] += 2_000
        collecting.between()
    assert done == ([0] * 49 + [2]) * 2


def test_cycles_are_really_freed() -> None:
    """With the real collector: 100,000 cycles come and go, and never more than 20,000 odd are left."""
    collecting = Collecting()
    collecting.start()
    collecting.loaded("semantic")
    most = 0
    for _ in range(100):
        for _ in range(1000):
            ring: list[object] = []
            ring.append(ring)
        collecting.between()
        most = max(most, gc.get_count()[0])
    assert most < 22_000
