"""The core's values from the contract's."""

from collections.abc import Iterable

from embedfleet.api import Batching, BatchingSettings
from embedfleet_server.batching.core import BatchingCore
from embedfleet_server.batching.types import Bound, Breaking, Policy, Retry, Sizing

AHEAD = 0.005
"""Seconds before a device is expected to be idle from which its next batch is formed: a turn of a busy event loop takes
milliseconds. With batches of 10 ms a quarter came too late with 3 ms, one in fifty with 5 and with 8."""


def policy_of(batching: Batching) -> Policy:
    """How one model's batches are formed."""
    return Policy(
        enabled=batching.enabled,
        max_batch_size=batching.largest_batch,
        max_batch_tokens=batching.max_batch_tokens,
        max_wait=batching.max_wait_milliseconds / 1000,
        min_interval=batching.min_batch_interval_milliseconds / 1000,
        dispatch_when_idle=batching.dispatch_when_idle,
        sort_by_length=batching.sort_by_length,
        sizing=_sizing_of(batching),
        max_batch_mib=batching.max_batch_memory_mib,
        breaking=_breaking_of(batching),
    )


def retry_of(batching: Batching) -> Retry:
    """What becomes of a batch whose fault may pass."""
    return Retry(batching.max_retries, batching.retry_delay_milliseconds / 1000)


def bound_of(settings: BatchingSettings, name: str) -> Bound:
    """One model's own bound."""
    own = settings.models.get(name)
    return Bound() if own is None else Bound(own.max_queued_requests, own.max_queued_tokens)


def core_of(settings: BatchingSettings, names: Iterable[str]) -> BatchingCore:
    """The batching core of these models."""
    whole = settings.batching
    bound = Bound(whole.max_queued_requests, whole.max_queued_tokens)
    core = BatchingCore(whole.max_concurrent_batches, bound, retry=retry_of(whole), ahead=AHEAD)
    for name in names:
        core.add_model(name, policy_of(settings.for_model(name)), bound_of(settings, name))
        core.pause(name, paused=settings.for_model(name).paused)
    return core


def _sizing_of(batching: Batching) -> Sizing | None:
    """A lone request is a batch of its own, so there is nothing to learn where batching is off."""
    if batching.sizing == "Fixed" or not batching.enabled:
        return None
    largest, target = batching.largest_batch, batching.target_batch_milliseconds
    initial = min(max(batching.initial_batch_size, batching.min_batch_size), largest)
    return Sizing(batching.min_batch_size, initial, None if target is None else target / 1000)


def _breaking_of(batching: Batching) -> Breaking:
    health = batching.health
    delay = float(health.probe_after_seconds)
    longest = max(delay, Breaking().longest_delay)
    return Breaking(error_rate=health.failing_percent / 100, delay=delay, longest_delay=longest)
