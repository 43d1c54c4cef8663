"""The window of averages."""

import threading
from itertools import count

import pytest

from embedfleet_server import BatchStats


@pytest.mark.requirement("P4")
def test_averages_over_known_batches() -> None:
    """Two batches and an error, worked out by hand; the clock shows their ends."""
    ends = iter([10.0, 12.0, 12.0])
    stats = BatchStats(window=10, clock=lambda: next(ends))
    stats.update(batch_size=10, processing_time=1.0, queue_time=0.5)
    stats.update(batch_size=30, processing_time=2.0, queue_time=1.5)
    stats.record_error(10)
    assert stats.get_stats() == {
        "avg_processing_time": 1.5,
        "avg_batch_size": 20.0,
        "avg_queue_time": 1.0,
        "p95_latency": 3.5,
        "p99_latency": 3.5,
        "throughput": 40 / 3,
        "error_rate": 10 / 50,
    }


@pytest.mark.requirement("P4")
def test_percentiles_are_over_items() -> None:
    """96 of 100 items were in the fast batch: the 95th percentile is its, the 99th is the slow one's."""
    stats = BatchStats()
    stats.update(96, 0.01)
    stats.update(4, 1.0)
    found = stats.get_stats()
    assert (found["p95_latency"], found["p99_latency"]) == (0.01, 1.0)


@pytest.mark.requirement("P4")
def test_only_the_last_batches_count() -> None:
    """A window of three forgets the first of four."""
    stats = BatchStats(window=3)
    for size in (100, 1, 2, 3):
        stats.update(size, 1.0)
    assert stats.get_stats()["avg_batch_size"] == 2.0


@pytest.mark.requirement("P4")
def test_nothing_seen_is_zero_and_a_window_of_nothing_is_refused() -> None:
    """No division by zero, and one clear error."""
    assert set(BatchStats().get_stats().values()) == {0.0}
    with pytest.raises(ValueError, match=r"window is 0: it must be at least 1"):
        BatchStats(window=0)


@pytest.mark.requirement("P4")
def test_many_threads_update_and_none_is_lost() -> None:
    """Eight threads, 100 batches and 100 errors each, while another reads."""
    ticks = count(1)
    stats = BatchStats(window=100_000, clock=lambda: float(next(ticks)))

    def use() -> None:
        for _ in range(100):
            stats.update(1, 0.5)
            stats.record_error()
            assert 0.0 <= stats.get_stats()["error_rate"] <= 1.0

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stats.get_stats()["error_rate"] == 0.5
    assert stats.get_stats()["avg_batch_size"] == 1.0
