"""Values that are not given are those of the manifest."""

import pytest

from embedfleet.api import Batching
from embedfleet_server.batching.types import Breaking, Policy, Retry, Sizing

MANIFEST = Batching(sizing="Fixed")


@pytest.mark.requirement("B2", "B3", "B4", "B5", "B17", "B18")
def test_a_policy_is_by_default_what_the_manifest_is() -> None:
    """So that whoever uses the core alone gets what the server gives."""
    policy = Policy()
    assert policy.enabled == MANIFEST.enabled
    assert policy.max_batch_size == MANIFEST.largest_batch
    assert policy.max_batch_tokens == MANIFEST.max_batch_tokens
    assert policy.max_wait == MANIFEST.max_wait_milliseconds / 1000
    assert policy.min_interval == MANIFEST.min_batch_interval_milliseconds / 1000
    assert policy.dispatch_when_idle == MANIFEST.dispatch_when_idle
    assert policy.sort_by_length == MANIFEST.sort_by_length


@pytest.mark.requirement("A1", "B22")
def test_so_are_sizing_and_retries() -> None:
    """The initial size and the smallest; three retries, the first after a second."""
    assert (Sizing().smallest, Sizing().initial) == (MANIFEST.min_batch_size, MANIFEST.initial_batch_size)
    assert Retry() == Retry(MANIFEST.max_retries, MANIFEST.retry_delay_milliseconds / 1000)


@pytest.mark.requirement("H2")
def test_a_breaker_looks_at_20_batches_and_waits_5_to_60_seconds() -> None:
    """It opens when more than half failed of at least ten."""
    assert Breaking() == Breaking(window=20, at_least=10, error_rate=0.5, delay=5.0, longest_delay=60.0)
