"""Averages over the last batches."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class _Ended:
    """One batch, or items that failed (`processed` 0); times in seconds."""

    at: float
    processed: int
    failed: int
    processing: float = 0.0
    queued: float = 0.0


class BatchStats:
    """A window over the last `window` batches; every method may be called from any thread.

    >>> stats = BatchStats(window=100)
    >>> stats.update(batch_size=8, processing_time=0.02, queue_time=0.005)
    >>> stats.record_error()
    >>> round(stats.get_stats()["error_rate"], 3)
    0.111
    """

    def __init__(self, window: int = 1000, clock: Callable[[], float] = time.monotonic) -> None:
        """`window`: how many batches are looked back upon, at least 1; `clock` gives seconds."""
        if window < 1:
            raise ValueError(f"window is {window}: it must be at least 1")
        self._clock = clock
        self._lock = threading.Lock()
        self._batches: deque[_Ended] = deque(maxlen=window)

    def update(self, batch_size: int, processing_time: float, queue_time: float = 0.0) -> None:
        """A batch ended well: its items, the seconds of its call, the seconds that its oldest item waited."""
        with self._lock:
            self._batches.append(_Ended(self._clock(), batch_size, 0, processing_time, queue_time))

    def record_error(self, items: int = 1) -> None:
        """So many items failed for good."""
        with self._lock:
            self._batches.append(_Ended(self._clock(), 0, items))

    def get_stats(self) -> dict[str, float]:
        """Times in seconds, throughput in items a second, `error_rate` as a share of items; 0.0 where nothing is known.

        `p95_latency` and `p99_latency` are over items; an item counts with the wait of the oldest one in its batch, so
        the true value is never above the one told.
        """
        with self._lock:
            ended = list(self._batches)
        batches = [batch for batch in ended if batch.processed]
        failed = sum(batch.failed for batch in ended)
        items = sum(batch.processed for batch in batches)
        return {
            "avg_processing_time": _mean([batch.processing for batch in batches]),
            "avg_batch_size": _mean([batch.processed for batch in batches]),
            "avg_queue_time": _mean([batch.queued for batch in batches]),
            "p95_latency": _percentile(batches, 0.95),
            "p99_latency": _percentile(batches, 0.99),
            "throughput": _throughput(batches, items),
            "error_rate": failed / (items + failed) if failed else 0.0,
        }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _percentile(batches: list[_Ended], share: float) -> float:
    """The latency under which this share of the items stays."""
    if not batches:
        return 0.0
    ranked = sorted((batch.queued + batch.processing, batch.processed) for batch in batches)
    reached = list(accumulate(size for _, size in ranked))
    return next(latency for (latency, _), items in zip(ranked, reached, strict=True) if items >= share * reached[-1])


def _throughput(batches: list[_Ended], items: int) -> float:
    """Items over the time from the start of the first batch of the window to the end of the last."""
    if not batches:
        return 0.0
    seconds = batches[-1].at - min(batch.at - batch.processing for batch in batches)
    return items / seconds if seconds > 0 else 0.0
