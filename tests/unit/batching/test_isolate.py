"""What follows a failure: the same again after a back-off, or halves."""

import pytest

from embedfleet_server.batching.isolate import HeldBatches, Plan, plan
from embedfleet_server.batching.types import Batch, Entry, Fault, Retry, Work

RETRY = Retry(max_retries=3, delay=1.0)


def failed(inputs: int, attempt: int = 0, *, is_part: bool = False) -> Batch:
    """A batch of single-input requests."""
    works = [Work("m", [n], [1], None, 0.0, n) for n in range(inputs)]
    return Batch(1, "m", "gpu", [(n, 1, work, 0) for n, work in enumerate(works)], inputs, 0.0, attempt, is_part)


def numbers(groups: list[list[Entry]]) -> list[list[int]]:
    return [[entry[0] for entry in group] for group in groups]


@pytest.mark.requirement("B22")
@pytest.mark.parametrize(("attempt", "delay"), [(0, 1.0), (1, 2.0), (2, 4.0)])
def test_a_fault_that_may_pass_is_tried_again_whole_after_1_2_and_4_seconds(attempt: int, delay: float) -> None:
    """The attempt is counted, and a batch that was whole stays one."""
    follows = plan(failed(3, attempt), Fault.TRANSIENT, RETRY)
    assert numbers(follows.groups) == [[0, 1, 2]]
    assert (follows.attempt, follows.delay, follows.failed, follows.is_part) == (attempt + 1, delay, [], False)


@pytest.mark.requirement("B22")
def test_a_back_off_is_a_minute_at_most() -> None:
    """However many retries are allowed."""
    assert plan(failed(2, 5), Fault.TRANSIENT, Retry(99, 1.0)).delay == 32.0
    assert plan(failed(2, 9), Fault.TRANSIENT, Retry(99, 1.0)).delay == 60.0


@pytest.mark.requirement("B22")
def test_after_the_last_retry_it_is_halved() -> None:
    """At once, and the retries are not given anew to the halves."""
    follows = plan(failed(5, 3), Fault.TRANSIENT, RETRY)
    assert numbers(follows.groups) == [[0, 1], [2, 3, 4]]
    assert (follows.attempt, follows.delay, follows.failed, follows.is_part) == (3, 0.0, [], True)


@pytest.mark.requirement("B22", "B23")
@pytest.mark.parametrize("fault", [Fault.PERMANENT, Fault.MEMORY])
def test_a_fault_that_will_not_pass_is_halved_until_the_input_is_alone(fault: Fault) -> None:
    """Two make two of one; one alone failed for good."""
    assert numbers(plan(failed(2), fault, RETRY).groups) == [[0], [1]]
    alone = plan(failed(1), fault, RETRY)
    assert (alone.groups, numbers([alone.failed]), alone.delay) == ([], [[0]], 0.0)


@pytest.mark.requirement("B10", "B22")
def test_those_who_left_are_not_tried_again() -> None:
    """Of two one left: the other is tried alone before it is blamed. When all left nothing follows."""
    for fault in (Fault.PERMANENT, Fault.TRANSIENT):
        batch = failed(2)
        batch.entries[0][2].cancelled = True
        assert numbers(plan(batch, fault, RETRY).groups) == [[1]]
        batch.entries[1][2].cancelled = True
        assert plan(batch, fault, RETRY).groups == []
    gone = failed(1)
    gone.entries[0][2].cancelled = True
    assert plan(gone, Fault.PERMANENT, RETRY).failed == []


@pytest.mark.requirement("B22")
def test_a_part_that_is_tried_again_stays_a_part() -> None:
    """For the breaker: a bad input counts once."""
    assert plan(failed(2, is_part=True), Fault.TRANSIENT, RETRY).is_part


def held_at(held: HeldBatches, model: str, delay: float, *names: int) -> None:
    """Hold a group of one batch for each name."""
    entries = failed(10).entries
    held.add(model, Plan([[entries[n]] for n in names], 1, delay, []), 100.0)


@pytest.mark.requirement("B22")
def test_the_first_that_is_due_and_may_run_is_taken() -> None:
    """By time, of equals by order; what may not run is passed over; each is taken once."""
    held = HeldBatches()
    held_at(held, "a", 2.0, 1)
    held_at(held, "b", 1.0, 2, 3)
    held_at(held, "a", 1.0, 4)
    assert len(held) == 4
    assert held.due(100.9, {"a", "b"}) is None
    taken = [held.due(at, models) for at, models in ((101.0, {"a"}), (101.0, {"a"}), (101.0, {"a", "b"}))]
    assert [group and numbers([group.entries]) for group in taken] == [[[4]], None, [[2]]]
    assert [numbers([group.entries]) for group in held.all()] == [[[3]], [[1]]]
    later = [held.due(102.0, {"a", "b"}) for _ in range(3)]
    assert [group and numbers([group.entries]) for group in later] == [[[3]], [[1]], None]
    assert len(held) == 0
