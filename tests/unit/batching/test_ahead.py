"""The batch that waits beside the one that runs: when it is formed, and what it is counted for."""

import math

import pytest

from embedfleet_server.batching.core import BatchingCore
from embedfleet_server.batching.types import Batch, Bound, Breaking, Fault, Policy, Retry, Work

pytestmark = pytest.mark.requirement("B6")
AHEAD, SECONDS = 0.5, 2.0


def core(policy: Policy | None = None, devices: str = "x", *, permits: int = 9, per_device: int = 1) -> BatchingCore:
    """One model whose batches are known to take two seconds, on devices that are told half a second ahead."""
    made = BatchingCore(permits, Bound(100), per_device, Retry(max_retries=1, delay=3.0), ahead=AHEAD)
    made.add_model("a", policy or Policy(max_batch_size=4, max_wait=9.0, sort_by_length=False))
    made.model_ready("a", *devices, padded=False)
    for _ in devices:
        put(made)
        made.complete(started(made), SECONDS)
    return made


def put(made: BatchingCore, inputs: int = 1, now: float = 0.0) -> Work:
    work = made.submit("a", range(inputs), [5] * inputs, None, now)
    assert isinstance(work, Work)
    return work


def started(made: BatchingCore, now: float = 0.0) -> Batch:
    found = made.next_batch(now)
    assert found is not None
    return found


def test_the_next_batch_is_formed_a_little_before_the_end_that_is_expected() -> None:
    """However full the queue is before: who comes until then may be in it. The core asks to be woken for it."""
    made = core()
    put(made)
    first = started(made, 10.0)
    put(made, 6, 10.1)
    assert made.next_batch(11.4) is None
    assert made.wake_at(11.4) == 11.5
    second = started(made, 11.5)
    assert len(second.entries) == 4
    assert (first.began, second.began) == (10.0, math.inf)


def test_at_most_one_waits() -> None:
    """However long the one that runs takes; nothing wakes for a third."""
    made = core()
    for now in (10.0, 11.5):
        put(made, now=now)
        started(made, now)
    put(made, 4, 11.6)
    assert (made.next_batch(12.0), made.wake_at(12.0)) == (None, None)


def test_behind_one_that_takes_twice_as_long_none_is_formed() -> None:
    """It may hang; what waits is free to go elsewhere. Nothing wakes for it either."""
    made = core()
    put(made)
    first = started(made, 10.0)
    put(made, now=14.1)
    assert (made.next_batch(14.1), made.wake_at(14.1)) == (None, None)
    made.complete(first, 5.0, now=15.0)
    started(made, 15.0)


def test_it_begins_when_the_one_before_it_ends() -> None:
    """What it takes, and how old it is, counts from then; the third may be formed before its own end."""
    made = core()
    put(made)
    first = started(made, 10.0)
    put(made, now=11.5)
    second = started(made, 11.5)
    assert made.oldest_running("a") == 10.0
    made.complete(first, 3.0, now=13.0)
    assert (second.began, made.oldest_running("a")) == (13.0, 13.0)
    put(made, now=13.0)
    opens = made.wake_at(13.0)
    assert opens is not None
    assert opens == pytest.approx(13.0 + second.expected - AHEAD)
    assert made.next_batch(opens - 0.01) is None
    started(made, opens)


def test_one_that_ends_early_leaves_the_device_idle_as_ever() -> None:
    """The next is formed at once."""
    made = core()
    put(made)
    first = started(made, 10.0)
    put(made, now=10.1)
    made.complete(first, 0.5, now=10.5)
    assert started(made, 10.5).began == 10.5


def test_one_that_fails_lets_the_next_begin_too() -> None:
    """Its inputs are tried again behind what waits on the device."""
    made = core()
    put(made)
    first = started(made, 10.0)
    put(made, now=11.6)
    second = started(made, 11.6)
    made.fail(first, Fault.TRANSIENT, 11.8)
    assert second.began == 11.8
    assert made.next_batch(13.0) is None
    assert made.wake_at(13.0) == pytest.approx(11.8 + SECONDS - AHEAD)
    made.complete(second, SECONDS, now=13.8)
    assert (made.next_batch(13.8), made.wake_at(13.8)) == (None, 14.8)
    assert started(made, 14.8).attempt == 1


def test_one_that_fails_while_it_waits_began_when_it_failed() -> None:
    """And so does one that ends out of turn; the one that runs goes on."""
    made = core()
    put(made)
    first = started(made, 10.0)
    put(made, now=11.6)
    second = started(made, 11.6)
    made.fail(second, Fault.MEMORY, 11.7)
    assert (first.began, second.began) == (10.0, 11.7)
    assert made.oldest_running("a") == 10.0


def test_short_batches_are_formed_in_the_second_half_of_the_one_before() -> None:
    """Where half a second ahead would be before its beginning."""
    made = core()
    for _ in range(30):
        put(made)
        made.complete(started(made), 0.2)
    put(made)
    first = started(made, 10.0)
    put(made, now=10.0)
    opens = made.wake_at(10.0)
    assert opens is not None
    assert opens == pytest.approx(10.0 + first.expected / 2)
    assert first.expected < AHEAD


def test_a_permit_that_an_idle_device_could_use_is_not_spent_on_waiting() -> None:
    """Two devices, two permits: while one runs, the other has the first claim, whichever model may use it."""
    made = core(devices="xy", permits=2)
    made.add_model("b", Policy())
    made.model_ready("b", "y", padded=False)
    made.change("a", Policy(max_batch_size=1, breaking=Breaking(at_least=1, delay=500.0)))
    put(made, 2)
    well, fails = started(made, 5.0), started(made, 5.0)
    made.complete(well, SECONDS, now=7.0)
    made.fail(fails, Fault.PERMANENT, 7.0)
    put(made, 2, 10.0)
    assert started(made, 10.0).device == well.device
    assert (made.next_batch(11.9), made.wake_at(11.9)) == (None, 507.0)
    assert isinstance(made.submit("b", [0], [5], None, 11.9), Work)
    assert (started(made, 11.9).device == well.device) is (well.device == "y")


def test_while_the_cost_is_not_known_none_is_formed_ahead() -> None:
    """Of the first batch nobody knows when it ends."""
    made = BatchingCore(9, Bound(100), ahead=AHEAD)
    made.add_model("a", Policy(max_batch_size=1))
    made.model_ready("a", "x", padded=False)
    put(made, 3)
    started(made)
    assert (made.next_batch(99.0), made.wake_at(99.0)) == (None, None)


def test_the_longer_a_batch_the_earlier_the_next_is_formed() -> None:
    """A twentieth of what it is expected to take, where that is more: its end is known no better."""
    made = core()
    put(made)
    made.complete(started(made), 400.0)
    put(made)
    first = started(made, 1000.0)
    put(made, now=1000.0)
    opens = made.wake_at(1000.0)
    assert opens is not None
    assert opens == pytest.approx(1000.0 + 0.95 * first.expected)
    assert first.expected > 20 * AHEAD


def test_a_batch_that_waits_holds_a_permit() -> None:
    """So that one permit is one batch in all."""
    made = core(permits=1)
    put(made)
    started(made, 10.0)
    put(made, now=11.9)
    assert (made.next_batch(11.9), made.wake_at(11.9)) == (None, None)


def test_a_device_that_stands_idle_is_taken_before_one_that_soon_will() -> None:
    """And one that soon will before none."""
    made = core(devices="xy")
    put(made)
    first = started(made, 10.0)
    put(made, now=11.9)
    second = started(made, 11.9)
    assert {first.device, second.device} == {"x", "y"}
    put(made, now=11.9)
    assert started(made, 11.9).device == first.device


def test_where_a_device_is_kept_from_a_model_the_core_wakes_for_the_others() -> None:
    """Of two devices one fails until 12; the busy one opens before that."""
    made = core(Policy(max_batch_size=1, breaking=Breaking(at_least=1, delay=5.0)), devices="xy")
    put(made, 2)
    well, fails = started(made, 5.0), started(made, 5.0)
    made.complete(well, SECONDS, now=7.0)
    made.fail(fails, Fault.PERMANENT, 7.0)
    put(made)
    assert started(made, 10.0).device == well.device
    put(made, now=10.1)
    assert made.next_batch(10.1) is None
    assert made.wake_at(10.1) == pytest.approx(10.0 + SECONDS - AHEAD)
