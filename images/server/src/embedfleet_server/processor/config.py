"""The values of a `BatchProcessor`: the names and defaults of `spec.batching`, as far as they act in process."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import IntEnum

from embedfleet_server.batching.types import CRITICAL, HIGH, LOW, LOWEST, NORMAL, Policy, Retry, Sizing
from embedfleet_server.engine.errors import InvalidRequest
from embedfleet_server.engine.faults import MayPass
from embedfleet_server.engine.observer import BatchRecord

_WHOLE = {
    "max_batch_size": (1, 4096),
    "min_batch_size": (1, 4096),
    "initial_batch_size": (1, 4096),
    "max_workers": (1, 256),
    "max_queued_requests": (1, 1_000_000),
    "max_retries": (0, 100),
    "monitoring_window": (1, 1_000_000),
}
"""Whole numbers and their bounds; those that stand in the manifest have the manifest's."""
_TIMES = {
    "max_wait_milliseconds": (0, 60_000),
    "min_batch_interval_milliseconds": (0, 60_000),
    "retry_delay_milliseconds": (0, 600_000),
    "item_timeout_seconds": (0.001, 86_400),
    "target_batch_milliseconds": (0.001, 600_000),
}
_OPTIONAL = {
    "initial_batch_size",
    "item_timeout_seconds",
    "target_batch_milliseconds",
    "retryable",
    "metrics_collector",
}
_USUAL = 32  # where learning starts when nothing is said, as in the manifest
_SWITCHES = {"enabled", "dispatch_when_idle", "priorities", "monitoring", "health", "adaptive"}


class Priority(IntEnum):
    """Names of four of the priorities 0-255; a higher one goes first, and waiting raises it."""

    LOW = LOW
    NORMAL = NORMAL
    HIGH = HIGH
    CRITICAL = CRITICAL


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchProcessorConfig:
    """How calls become batches. Raises one `ValueError` that names every wrong value and what it must be."""

    max_batch_size: int = 32
    """Most items in one call; with `adaptive`, the largest size that may be chosen."""
    max_wait_milliseconds: float = 50
    """Longest that an item waits for company."""
    dispatch_when_idle: bool = True
    """With no call under way, nothing waits for company."""
    enabled: bool = True
    """Whether items share calls at all; when false each request is a call of its own."""
    max_workers: int = 4
    """Most calls at once; a plain callable has a thread for each."""
    max_queued_requests: int = 1000
    """Most items waiting at once; what does not fit is refused."""
    item_timeout_seconds: float | None = 30
    """No caller waits longer than this for an answer (pauses and retries included); None: as long as it takes."""
    min_batch_interval_milliseconds: float = 0
    """Least time between the starts of two calls; never against `max_wait_milliseconds`."""
    max_retries: int = 3
    """How often a call is tried again after a fault that may pass."""
    retry_delay_milliseconds: float = 1000
    """Wait before the first of these tries; it doubles with each."""
    retryable: MayPass | None = None
    """Says of an exception that it may pass; TransientError, OSError and TimeoutError always may."""
    priorities: bool = True
    """Whether priorities count; when false the order is that of arrival."""
    adaptive: bool = False
    """Whether the batch size is learnt from the calls, between `min_batch_size` and `max_batch_size`."""
    min_batch_size: int = 1
    """The smallest size that `adaptive` may choose; it never delays a call."""
    initial_batch_size: int | None = None
    """Where `adaptive` starts; None: 32, or the nearest allowed."""
    target_batch_milliseconds: float | None = None
    """Longest that a call should take, for `adaptive`; None: whatever gives the most items per second."""
    monitoring: bool = True
    """Whether calls are measured: the averages of `get_stats`, and the collector."""
    monitoring_window: int = 1000
    """Over how many of the last calls."""
    metrics_collector: Callable[[BatchRecord], None] | None = None
    """Called with each batch, on the processor's own thread: it must be quick. Each item is in one record."""
    health: bool = True
    """Whether a growing queue and a call that does not end are logged, once per change."""

    def __post_init__(self) -> None:
        problems = [problem for field in fields(self) if (problem := _problem(field.name, getattr(self, field.name)))]
        problems = problems or self._contradictions()
        if problems:
            raise ValueError(f"BatchProcessorConfig: {'; '.join(problems)}")

    def policy(self, size: int) -> Policy:
        """The core's values for batches of at most `size` items, where not learnt; an item counts as one token."""
        return Policy(
            enabled=self.enabled,
            max_batch_size=size,
            max_batch_tokens=size,
            max_wait=self.max_wait_milliseconds / 1000,
            min_interval=self.min_batch_interval_milliseconds / 1000,
            dispatch_when_idle=self.dispatch_when_idle,
            sort_by_length=False,
            sizing=self._sizing() if self.adaptive else None,
        )

    def retry(self) -> Retry:
        """The core's retry values."""
        return Retry(self.max_retries, self.retry_delay_milliseconds / 1000)

    def priority(self, asked: object) -> int:
        """The priority that counts; raises `InvalidRequest` when it is none."""
        if isinstance(asked, bool) or not isinstance(asked, int) or not LOWEST <= asked <= CRITICAL:
            raise InvalidRequest(f"priority is {asked!r}: it must be 0 to 255", "priority")
        return int(asked) if self.priorities else NORMAL

    def _sizing(self) -> Sizing:
        usual = min(max(_USUAL, self.min_batch_size), self.max_batch_size)
        target = self.target_batch_milliseconds
        return Sizing(self.min_batch_size, self.initial_batch_size or usual, None if target is None else target / 1000)

    def size_problem(self, size: object) -> str | None:
        """What is wrong with a batch size to go on with, if anything is."""
        must = _must("max_batch_size", size)
        if must is not None:
            return f"batch size is {size!r}: it must be {must}"
        low, high = self.min_batch_size, self.max_batch_size
        if self.adaptive and not low <= size <= high:  # type: ignore[operator]  # just seen to be a number
            return f"batch size is {size}: with adaptive it must be from {low} to {high}"
        return None

    def _contradictions(self) -> list[str]:
        low, high, first = self.min_batch_size, self.max_batch_size, self.initial_batch_size
        found = []
        if low > high:
            found.append(f"min_batch_size is {low}: it must be at most max_batch_size ({high})")
        if first is not None and not low <= first <= high:
            found.append(
                f"initial_batch_size is {first}: it must be from min_batch_size ({low}) to max_batch_size ({high})"
            )
        return found


def _problem(name: str, value: object) -> str | None:
    if value is None and name in _OPTIONAL:
        return None
    must = _must(name, value)
    return f"{name} is {value!r}: it must be {must}" if must else None


def _must(name: str, value: object) -> str | None:
    """What `value` must be, when it is not."""
    if name in _SWITCHES:
        return None if isinstance(value, bool) else "True or False"
    if name in _WHOLE:
        low, high = _WHOLE[name]
        good = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return None if good else f"a whole number from {low} to {high}"
    if name in _TIMES:
        return None if _is_within(value, *_TIMES[name]) else f"a number from {_TIMES[name][0]} to {_TIMES[name][1]}"
    return None if callable(value) else "callable, or None"


def _is_within(value: object, low: float, high: float) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return is_number and low <= value <= high  # type: ignore[operator]  # just seen to be a number
