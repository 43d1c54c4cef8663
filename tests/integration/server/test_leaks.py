"""A server gives back what it took, whatever its clients and its device did.

The long form, with memory: `make soak`.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.soak.memory import verdict
from tests.support import mixed_load
from tests.support.leaks import Held, grown, held, slope
from tests.support.process import Process, process

pytestmark = pytest.mark.requirement("B13")
_REQUESTS = 400
_LOOKS = 1000


def test_all_comes_back(tmp_path: Path) -> None:
    """After hundreds of requests, bad, faulty and broken off among them, a server holds as many descriptors, threads,
    tasks and permits as after the first hundreds.
    """

    def some(count: int, seed: int) -> mixed_load.Done:
        left = iter(range(count))
        return asyncio.run(mixed_load.run(port, lambda: next(left, None) is not None, seed))

    with process(tmp_path) as server:
        server.line("is ready at")
        port = urlsplit(server.record.url).port or 0
        some(_REQUESTS, 0)
        before = _settled(server, _is_quiet)
        done = some(_REQUESTS, 1)
        assert done.statuses[200] > 0
        assert done.left > 0
        assert grown(before, _settled(server, lambda now: not grown(before, now))) == []
        server.stop()


def _settled(server: Process, enough: Callable[[Held], bool]) -> Held:
    """What it holds once that is `enough`, or after so many looks: connections end one after the other."""
    looks = (held(server) for _ in range(_LOOKS))
    return next((now for now in looks if enough(now)), held(server))


def _is_quiet(now: Held) -> bool:
    """No work is left of what clients left behind."""
    return now.permits == now.running == now.waiting == 0


def test_what_counts_as_a_leak() -> None:
    """More of anything is told; less is none. The slope is that of the line through the samples."""
    before = Held(files=20, threads=5, tasks=8, permits=0, running=0, waiting=0)
    assert grown(before, before) == []
    assert grown(before, Held(files=19, threads=6, tasks=8, permits=1, running=0, waiting=0)) == [
        "threads: 5 before, 6 after",
        "permits: 0 before, 1 after",
    ]
    assert slope([(0, 10.0), (1, 10.5), (2, 11.0)]) == pytest.approx(0.5)
    assert slope([(0, 10.0)]) == 0.0


def test_growth_is_told_from_the_settled_time_on() -> None:
    """What a model and its caches take at first is none, nor is a peak: of ten minutes the last seven count, by the
    lowest of their first minute and of their last.
    """
    filling = [(float(at), 500.0 + at) for at in range(180)]
    steady = [(float(at), 700.0 + (at - 180) / 60) for at in range(180, 601)]
    peaks = [(at, mib + 100.0 * (at % 7 == 0)) for at, mib in steady]
    assert verdict(filling + peaks, 600.0).growth == pytest.approx(6.0)
    found = verdict(filling + steady, 600.0)
    assert found.rate == pytest.approx(1.0)
    assert found.growth == pytest.approx(6.0)
