"""What may start and when the core wants to be woken: permits, places on devices, pauses, back-offs, the breaker."""

import pytest

from embedfleet_server.batching.core import BatchingCore
from embedfleet_server.batching.types import Batch, Bound, Breaking, Fault, Policy, Retry, Work

WAITS = Policy(max_batch_size=4, max_wait=1.0, dispatch_when_idle=False)


def core(policy: Policy = WAITS, models: str = "a", *, permits: int = 4, per_device: int = 1) -> BatchingCore:
    """All on one device."""
    made = BatchingCore(permits, Bound(100), per_device, Retry(max_retries=1, delay=3.0))
    for name in models:
        made.add_model(name, policy)
        made.model_ready(name, "gpu", padded=True)
    return made


def put(made: BatchingCore, inputs: int = 1, name: str = "a", now: float = 0.0) -> Work:
    work = made.submit(name, range(inputs), [1] * inputs, None, now)
    assert isinstance(work, Work)
    return work


def started(made: BatchingCore, now: float = 0.0) -> Batch:
    found = made.next_batch(now)
    assert found is not None
    return found


@pytest.mark.requirement("B2")
def test_it_wakes_for_the_first_wait_that_ends_over_all_models() -> None:
    """Of those on devices with room."""
    made = core(models="abc")
    put(made, name="b", now=5.0)
    put(made, name="a", now=4.0)
    assert made.wake_at(5.0) == 5.0
    assert started(made, 5.0).model == "a"
    assert made.wake_at(5.0) is None
    made.model_ready("b", "another", padded=True)
    assert made.wake_at(5.0) == 6.0


@pytest.mark.requirement("B11")
def test_a_model_that_is_not_loaded_starts_nothing() -> None:
    """Its work waits and wakes nobody, until it is ready."""
    made = BatchingCore(1, Bound(10))
    made.add_model("a", Policy())
    put(made)
    assert (made.next_batch(99.0), made.wake_at(99.0)) == (None, None)
    made.model_ready("a", "gpu", padded=True)
    assert started(made).model == "a"


@pytest.mark.requirement("B6")
def test_with_all_permits_taken_nothing_starts_and_nothing_wakes() -> None:
    """More permits let more start at once; fewer take none away from what runs."""
    made = core(models="ab", permits=1, per_device=9)
    put(made, 4)
    put(made, 4, "b")
    first = started(made)
    assert (made.permits, made.next_batch(9.0), made.wake_at(9.0)) == (1, None, None)
    made.permits = 2
    assert made.permits == 2
    second = started(made)
    made.permits = 1
    put(made, 4)
    made.complete(first)
    assert made.next_batch(9.0) is None
    made.complete(second)
    assert len(started(made, 9.0).entries) == 4


@pytest.mark.requirement("B19")
def test_paused_whole_or_by_model_nothing_starts_and_nothing_wakes() -> None:
    """Work is still taken in; resumed, it goes in its order."""
    made = core(models="ab")
    put(made)
    made.pause("a", paused=True)
    assert made.is_paused("a")
    assert not made.is_paused("b")
    assert (made.next_batch(9.0), made.wake_at(9.0)) == (None, None)
    put(made, name="b", now=9.0)
    assert made.wake_at(9.0) == 10.0
    made.paused = True
    assert (made.next_batch(99.0), made.wake_at(9.0)) == (None, None)
    made.paused = False
    assert started(made, 99.0).model == "b"
    made.pause("a", paused=False)
    assert not made.is_paused("a")
    assert made.wake_at(9.0) is None


@pytest.mark.requirement("B19", "B22")
def test_a_batch_held_for_another_try_wakes_at_its_time_if_its_model_may_run() -> None:
    """Not while its model is paused; another model's batch does not wait for it."""
    made = core(models="ab")
    put(made, 4)
    made.fail(started(made), Fault.TRANSIENT, 1.0)
    assert made.wake_at(1.0) == 4.0
    put(made, name="b", now=3.5)
    assert made.wake_at(3.5) == 4.0
    made.pause("a", paused=True)
    assert made.wake_at(3.5) == 4.5
    assert started(made, 4.5).model == "b"
    made.pause("a", paused=False)
    assert made.next_batch(9.0) is None


@pytest.mark.requirement("B18")
def test_the_spacing_of_starts_counts_from_the_last_one() -> None:
    """Of the same model; the first start waits for nothing."""
    made = core(Policy(max_batch_size=1, max_wait=9.0, min_interval=0.5), "ab", per_device=9)
    put(made, 2, now=10.0)
    put(made, 1, "b", now=10.0)
    assert {started(made, 10.0).model, started(made, 10.0).model} == {"a", "b"}
    assert made.next_batch(10.4) is None
    assert made.wake_at(10.4) == 10.5
    assert started(made, 10.5).model == "a"


@pytest.mark.requirement("H2")
def test_an_open_breaker_wakes_for_its_probe_only_if_there_is_work() -> None:
    """At the end of its delay the one batch that is let in runs; then all go on."""
    made = core(Policy(max_batch_size=1, breaking=Breaking(window=2, at_least=2, delay=5.0)))
    put(made, 4)
    for now in (1.0, 2.0):
        assert made.fail(started(made, now), Fault.PERMANENT, now, f"boom {now}") != []
    assert made.breaker_of("a")[0].value == "open"
    assert made.breaker_of("a")[1] == "boom 2.0"
    assert (made.next_batch(6.9), made.wake_at(2.0)) == (None, 7.0)
    probe = started(made, 7.0)
    assert made.breaker_of("a")[0].value == "half-open"
    assert (made.next_batch(7.0), made.wake_at(7.0)) == (None, None)
    made.complete(probe, now=8.0)
    assert made.breaker_of("a")[0].value == "closed"
    made.cancel(started(made, 8.0).entries[0][2])
    empty = core(Policy(max_batch_size=1, breaking=Breaking(window=1, at_least=1, delay=5.0)))
    put(empty)
    empty.fail(started(empty), Fault.PERMANENT, 0.0, "boom")
    assert empty.wake_at(0.0) is None


@pytest.mark.requirement("B6")
def test_each_device_has_its_own_places() -> None:
    """Two places on each of two devices: four batches, and a place that is given back is taken again."""
    made = BatchingCore(9, Bound(100), 2)
    for name, device in zip("abcdef", "xyxyxy", strict=True):
        made.add_model(name, Policy())
        made.model_ready(name, device, padded=True)
        put(made, name=name)
    running = []
    while (batch := made.next_batch(0.0)) is not None:
        running.append(batch)
    assert [batch.device for batch in running] == ["x", "y", "x", "y"]
    assert made.stats().active_batches == 4
    made.complete(running[1])
    assert started(made).device == "y"
    assert made.next_batch(0.0) is None
