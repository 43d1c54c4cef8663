"""The work queue: each object once, by one worker, not too often, and later after failures."""

import pytest

from embedfleet_operator.work_queue import WorkQueue

A, B = ("team", "a"), ("team", "b")


def test_many_events_are_one_pass() -> None:
    """However often an object is asked for, it is taken once."""
    queue = WorkQueue()
    for _ in range(5):
        queue.add(A, 0.0)
    assert queue.take(0.0) == A
    assert queue.take(0.0) is None


def test_those_that_wait_longest_come_first() -> None:
    """Objects are taken in the order in which they became due."""
    queue = WorkQueue()
    queue.add(B, 0.0)
    queue.add(A, 1.0)
    assert [queue.take(2.0), queue.take(2.0)] == [B, A]


@pytest.mark.requirement("O7")
def test_an_event_amid_a_pass_is_not_lost() -> None:
    """What happens while an object is worked on leads to another pass, and not to a second worker on it."""
    queue = WorkQueue()
    queue.add(A, 0.0)
    assert queue.take(0.0) == A
    queue.add(A, 0.1)
    assert queue.take(5.0) is None
    queue.done(A, 5.0)
    assert queue.take(5.0) == A


def test_passes_on_one_object_keep_a_distance() -> None:
    """Two passes on one object begin at least 0.2 s apart, and another object need not wait for that."""
    queue = WorkQueue()
    queue.add(A, 0.0)
    queue.take(0.0)
    queue.done(A, 0.05)
    queue.add(A, 0.05)
    queue.add(B, 0.05)
    assert [queue.take(0.1), queue.take(0.1), queue.take(0.2)] == [B, None, A]


@pytest.mark.requirement("O7")
def test_failures_are_repeated_later_and_later() -> None:
    """The wait doubles from 0.5 s to 30 s; an event does not shorten it; a success ends it."""
    queue, now, waits = WorkQueue(), 0.0, []
    queue.add(A, now)
    for _ in range(20):
        assert queue.take(now) == A
        queue.failed(A, now)
        queue.add(A, now)
        waits.append(queue.wait_seconds(now))
        now += waits[-1] or 0.0
    assert waits[:4] == pytest.approx([0.5, 1, 2, 4])
    assert waits[-1] == pytest.approx(30)
    queue.take(now)
    queue.done(A, now)
    queue.add(A, now)
    assert queue.wait_seconds(now) == pytest.approx(0.2)


def test_a_pass_may_ask_for_another() -> None:
    """A pass that wants to look again is repeated then, or earlier when something happens."""
    queue = WorkQueue()
    queue.add(A, 0.0)
    queue.take(0.0)
    queue.done(A, 0.0, again=10.0)
    assert queue.wait_seconds(1.0) == 9.0
    queue.add(A, 2.0)
    assert queue.take(2.0) == A


def test_nothing_is_kept_of_what_is_done() -> None:
    """Objects that are gone leave nothing behind."""
    queue = WorkQueue()
    queue.add(A, 0.0)
    queue.take(0.0)
    queue.done(A, 9.0)
    assert len(queue) == 0
    assert queue.wait_seconds(9.0) is None


def test_what_has_happened_goes_before_a_resync() -> None:
    """An edited object need not wait for those that a resync asked for before, unless these have waited for long."""
    queue = WorkQueue()
    queue.add(("a", "old"), 0.0, happened=False)
    queue.add(("a", "resynced"), 8.0, happened=False)
    queue.add(("a", "edited"), 12.0)
    assert [queue.take(12.0) for _ in range(3)] == [("a", "old"), ("a", "edited"), ("a", "resynced")]
    queue.done(("a", "old"), 12.0)
    queue.add(("a", "old"), 13.0, happened=False)
    queue.add(("a", "old"), 13.0)
    queue.add(("a", "other"), 12.5, happened=False)
    assert queue.take(13.0) == ("a", "old")
