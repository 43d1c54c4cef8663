"""From what the callable gave to the requests that asked, and from there to the statistics."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from embedfleet_server.batching.types import Batch, Entry, Fault
from embedfleet_server.engine.observer import BatchRecord
from embedfleet_server.processor.callables import Raised
from embedfleet_server.processor.config import BatchProcessorConfig
from embedfleet_server.processor.request import Failed, Request
from embedfleet_server.processor.stats import BatchStats

_log = logging.getLogger("embedfleet.processor")


class ResultDelivery:
    """The dispatcher's delivery, for results of any kind."""

    def __init__(
        self, config: BatchProcessorConfig, stats: BatchStats, ended: Callable[[Request | None], None]
    ) -> None:
        """`ended` hears of each request that has its answer, and of None when a failed batch waits again."""
        self._stats, self._ended = stats, ended
        self._collector = config.metrics_collector if config.monitoring else None
        self._is_measured = config.monitoring

    def check(self, batch: Batch, results: Any, model: Any) -> Sequence[int]:
        """All have one: the results were counted where the callable was called."""
        return ()

    def scatter(self, batch: Batch, results: Any, missing: Sequence[int], seconds: float) -> None:
        """Give each request its results. The batch counts as measured before any caller can look."""
        waited = batch.began - min(entry[2].arrived for entry in batch.entries)
        if self._is_measured:
            self._stats.update(len(batch.entries), seconds, waited)
            self._collect(_record(batch.entries, 0, waited, seconds))
        for entry, result in zip(batch.entries, results, strict=True):
            self._give(entry, result)

    def lose(self, entries: Sequence[Entry], fault: Fault, error: Exception) -> None:
        """The callable's own exception for each."""
        if entries and self._is_measured:
            self._stats.record_error(len(entries))
            self._collect(_record(entries, len(entries), 0.0, None))
        for entry in entries:
            self._give(entry, Failed(error.error if isinstance(error, Raised) else error))
        self._ended(None)

    def _give(self, entry: Entry, result: Any) -> None:
        _, _, work, index = entry
        request: Request = work.handle
        if not work.cancelled and request.take(index, result):
            request.answer()
            self._ended(request)

    def _collect(self, record: BatchRecord) -> None:
        if self._collector is None:
            return
        try:
            self._collector(record)
        except Exception:  # noqa: BLE001  # a collector's fault is no caller's
            _log.exception("metrics_collector failed; the batch goes on")


def _record(entries: Sequence[Entry], failed: int, waited: float, seconds: float | None) -> BatchRecord:
    tokens = sum(entry[1] for entry in entries)
    return BatchRecord("process_func", len(entries), tokens, tokens, waited, seconds, failed)
