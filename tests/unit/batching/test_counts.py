"""What the core says of itself: every input is counted where it is, and once."""

from dataclasses import astuple

import pytest

from embedfleet_server.batching.core import BatchingCore
from embedfleet_server.batching.types import Batch, Bound, Breaking, Fault, Policy, Refusal, Retry, Work


def core(bound: Bound | None = None, policy: Policy | None = None) -> BatchingCore:
    """Two models on a device each."""
    made = BatchingCore(4, bound or Bound(100), retry=Retry(max_retries=1, delay=2.0))
    for name in "ab":
        made.add_model(name, policy or Policy(max_batch_size=4))
        made.model_ready(name, f"device of {name}", padded=False)
    return made


def put(made: BatchingCore, inputs: int, name: str = "a", now: float = 0.0) -> Work:
    work = made.submit(name, list(range(inputs)), [5] * inputs, None, now)
    assert isinstance(work, Work)
    return work


def started(made: BatchingCore, now: float = 0.0) -> Batch:
    found = made.next_batch(now)
    assert found is not None
    return found


def counts(made: BatchingCore) -> tuple[int, ...]:
    """Submitted, completed, failed, cancelled, refused, retried, waiting, running; batches, batches under way."""
    return astuple(made.stats())


@pytest.mark.requirement("B16")
def test_a_core_without_work_counts_nothing() -> None:
    """All zeros, idle, and nothing due."""
    made = core()
    assert counts(made) == (0,) * 10
    assert made.is_idle
    assert made.wake_at(0.0) is None
    assert made.next_batch(0.0) is None


@pytest.mark.requirement("B16")
def test_inputs_are_counted_from_waiting_to_running_to_their_end() -> None:
    """Six come, four run, three of these get vectors and one does not; then the other two."""
    made = core()
    put(made, 6)
    assert counts(made) == (6, 0, 0, 0, 0, 0, 6, 0, 0, 0)
    batch = started(made)
    assert counts(made) == (6, 0, 0, 0, 0, 0, 2, 4, 1, 1)
    assert not made.is_idle
    made.complete(batch, 0.1, failed=1)
    assert counts(made) == (6, 3, 1, 0, 0, 0, 2, 0, 1, 0)
    made.complete(started(made), 0.1)
    assert counts(made) == (6, 5, 1, 0, 0, 0, 0, 0, 2, 0)
    assert made.is_idle


@pytest.mark.requirement("B7", "B16")
def test_refused_inputs_are_counted_whatever_refused_them() -> None:
    """Three for want of places, two for want of tokens, one by the breaker of its model."""
    made = core(Bound(4, 100), Policy(breaking=Breaking(window=1, at_least=1)))
    assert made.reserve("a", 4, 0.0) is None
    assert made.reserve("a", 3, 0.0) is not None
    assert made.stats().refused == 3
    made.release("a", 4)
    assert isinstance(made.submit("a", "xy", [60, 60], None, 0.0), Refusal)
    assert made.stats().refused == 5
    put(made, 1)
    made.fail(started(made), Fault.PERMANENT, 0.0, "boom")
    assert made.reserve("a", 1, 0.0) is not None
    assert made.reserve("b", 1, 0.0) is None
    assert made.stats().refused == 6
    assert made.stats().submitted == 1


@pytest.mark.requirement("B16", "B22")
def test_inputs_tried_again_are_counted_as_waiting_until_they_run() -> None:
    """A fault that may pass: all three wait again, none failed; after the back-off they run as one batch."""
    made = core()
    work = put(made, 3)
    assert made.fail(started(made), Fault.TRANSIENT, 1.0) == []
    assert counts(made) == (3, 0, 0, 0, 0, 3, 3, 0, 1, 0)
    assert (made.queue_depth("a"), made.total_queue_depth, made.is_idle) == (3, 3, False)
    assert made.next_batch(2.9) is None
    batch = started(made, 3.0)
    assert counts(made) == (3, 0, 0, 0, 0, 3, 0, 3, 2, 1)
    assert (work.held, work.running) == (0, 3)
    made.complete(batch)
    assert counts(made) == (3, 3, 0, 0, 0, 3, 0, 0, 2, 0)
    assert work.running == 0


@pytest.mark.requirement("B16", "B22")
def test_an_input_that_failed_for_good_is_given_back_and_counted() -> None:
    """Of two, halved, one alone fails again: it is the one returned, and only it counts as failed."""
    made = core()
    put(made, 2)
    assert made.fail(started(made), Fault.PERMANENT, 0.0) == []
    good, bad = started(made), None
    made.complete(good)
    bad = started(made)
    assert made.fail(bad, Fault.PERMANENT, 0.0) == bad.entries
    assert counts(made) == (2, 1, 1, 0, 0, 2, 0, 0, 3, 0)


@pytest.mark.requirement("B10", "B16")
@pytest.mark.parametrize("failed", [False, True])
def test_what_is_dropped_is_counted_once_wherever_it_was(failed: bool) -> None:
    """Of nine inputs four wait for another try, four run, one waits; dropped twice, they are counted once."""
    made = core()
    made.model_ready("b", "device of a", padded=False)
    work = put(made, 9)
    made.fail(started(made), Fault.TRANSIENT, 0.0)
    running = started(made, 0.0)
    for _ in range(2):
        made.cancel(work, failed=failed)
    s = made.stats()
    assert (s.failed, s.cancelled) == ((5, 0) if failed else (0, 5))
    assert (s.waiting, s.running, made.total_queue_depth) == (0, 4, 0)
    made.complete(running)
    s = made.stats()
    assert (s.failed, s.cancelled, s.completed) == ((5, 4, 0) if failed else (0, 9, 0))
    assert made.next_batch(9.0) is None
    assert made.is_idle


@pytest.mark.requirement("B10")
def test_a_held_batch_whose_callers_left_does_not_keep_others_waiting() -> None:
    """It is due, but empty: the batch that comes next starts in the same breath."""
    made = core()
    gone = put(made, 2)
    made.fail(started(made), Fault.TRANSIENT, 0.0)
    made.cancel(gone)
    stays = put(made, 1, now=2.0)
    assert [entry[2] for entry in started(made, 2.0).entries] == [stays]


@pytest.mark.requirement("B10", "B16")
def test_a_held_batch_goes_on_without_those_who_left() -> None:
    """Two requests share a batch that fails; one caller leaves, one runs out of time, the third is tried again."""
    made = core()
    put(made, 1)
    made.submit("a", ["late"], [5], None, 0.0, deadline=2.0)
    leaves = put(made, 1)
    batch = started(made)
    assert len(batch.entries) == 3
    made.fail(batch, Fault.TRANSIENT, 0.0)
    made.cancel(leaves)
    again = started(made, 2.0)
    assert (again.payloads(), again.tokens, again.attempt) == ([0], 5, 1)
    made.complete(again)
    assert counts(made) == (3, 1, 0, 2, 0, 3, 0, 0, 2, 0)


@pytest.mark.requirement("B16")
def test_depth_counts_places_that_are_only_reserved() -> None:
    """Three reserved and two queued are five waiting, of one model and over all; released, two."""
    made = core()
    assert made.reserve("a", 3, 0.0) is None
    put(made, 2)
    put(made, 1, "b")
    assert (made.queue_depth("a"), made.queue_depth("b"), made.total_queue_depth) == (5, 1, 6)
    assert not made.is_idle
    made.release("a", 3)
    assert (made.queue_depth("a"), made.total_queue_depth) == (2, 3)


@pytest.mark.requirement("H1")
def test_the_oldest_that_waits_and_that_runs_are_known_by_model() -> None:
    """Their times of arrival and of forming; None where there is none."""
    made = core()
    assert (made.oldest_waiting("a"), made.oldest_running("a")) == (None, None)
    for now in (1.0, 2.0, 3.0):
        put(made, 4, now=now)
    put(made, 1, "b", 0.5)
    assert made.oldest_waiting("a") == 1.0
    for name in "ab":
        made.model_ready(name, "one device", padded=False)
    first = started(made, 4.0)
    assert {first.model: made.oldest_running(first.model)} == {first.model: 4.0}
    assert made.oldest_running("b" if first.model == "a" else "a") is None


@pytest.mark.requirement("B7")
def test_a_request_without_inputs_waits_for_nothing() -> None:
    """It is taken, and nothing of it is queued, counted or due."""
    made = core()
    assert isinstance(made.submit("a", [], [], None, 0.0), Work)
    assert counts(made) == (0,) * 10
    assert made.wake_at(0.0) is None
    assert made.oldest_waiting("a") is None


@pytest.mark.requirement("B7")
def test_the_delay_sums_the_backlogs_of_all_models_whose_speed_is_known() -> None:
    """2 s of one and 3 s of the other are 5 s; a second where no speed is known; at least 50 ms, at most a minute."""
    made = core(Bound(10_000))
    put(made, 4)
    assert made.retry_after() == 1.0
    made.costs()["a"].learn(10, 1.0)
    assert made.retry_after() == pytest.approx(2.0)
    put(made, 6, "b")
    assert made.retry_after() == pytest.approx(2.0)
    made.costs()["b"].learn(10, 1.0)
    assert made.retry_after() == pytest.approx(5.0)
    put(made, 1000)
    assert made.retry_after() == 60.0
    fast = core()
    fast.costs()["a"].learn(1000, 0.01)
    put(fast, 1)
    assert fast.retry_after() == 0.05


@pytest.mark.requirement("B9")
def test_batches_are_numbered_and_know_what_they_compute() -> None:
    """Payloads in the order of rows; model, device, tokens and time of forming as they were."""
    made = core()
    made.submit("a", ["one", "two"], [3, 3], None, 0.0)
    first = started(made, 1.5)
    put(made, 1, "b")
    second = started(made, 2.5)
    assert (first.number, first.model, first.device, first.tokens, first.formed) == (1, "a", "device of a", 6, 1.5)
    assert first.payloads() == ["one", "two"]
    assert (second.number, second.attempt, second.is_part) == (2, 0, False)
