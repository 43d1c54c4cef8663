"""Which lengths share a batch: within the budget as the model computes it, and within what a start is worth."""

import pytest

from embedfleet_server.batching.fairness import Accounts
from embedfleet_server.batching.flow import length_bucket, one_bucket
from embedfleet_server.batching.policy import computed_tokens, due_at, form, is_ready
from embedfleet_server.batching.queue import ModelQueue
from embedfleet_server.batching.types import Policy, Room, Work


def queued(*requests: list[int], sort: bool = True) -> ModelQueue:
    queue = ModelQueue(length_bucket if sort else one_bucket, Accounts())
    for number, costs in enumerate(requests):
        queue.push(Work("m", costs, costs, None, 0.0, number), 0.0)
    return queue


def formed(queue: ModelQueue, room: Room, start: float = 1e9, *, padded: bool = True, sort: bool = True) -> list[int]:
    """The lengths in the next batch, in their order."""
    policy = Policy(sort_by_length=sort)
    return [entry[1] for entry in form(policy, room, queue, 0.0, padded=padded, start_tokens=start)]


@pytest.mark.requirement("B4")
def test_a_batch_may_hold_exactly_its_budget() -> None:
    """Four of 10 are 40: they fit in 40, in 39 three do."""
    assert formed(queued([10] * 5), Room(9, 40)) == [10] * 4
    assert formed(queued([10] * 5), Room(9, 39)) == [10] * 3
    assert formed(queued([10] * 5), Room(9, 39), padded=False) == [10] * 3


@pytest.mark.requirement("B4")
def test_a_longer_input_raises_what_all_before_it_cost() -> None:
    """Three of 10 and one of 11 are 44 padded and 41 packed."""
    assert formed(queued([10, 10, 10], [11]), Room(9, 43)) == [10] * 3
    assert formed(queued([10, 10, 10], [11]), Room(9, 44)) == [10] * 3 + [11]
    assert formed(queued([10, 10, 10], [11]), Room(9, 41), padded=False) == [10] * 3 + [11]


@pytest.mark.requirement("B5")
def test_padding_may_cost_as_much_as_a_start_and_no_more() -> None:
    """10 beside two of 30: 20 of padding; all padding of the batch counts together."""
    assert formed(queued([30, 30], [10]), Room(9, 999), 20) == [30, 30, 10]
    assert formed(queued([30, 30], [10]), Room(9, 999), 19) == [30, 30]
    assert formed(queued([30], [20, 20, 20]), Room(9, 999), 25) == [30, 20, 20]


@pytest.mark.requirement("B5")
def test_where_nothing_is_padded_or_sorted_lengths_do_not_matter() -> None:
    """Though a start be worth nothing."""
    assert formed(queued([30], [1], [500]), Room(9, 999), 0.0, padded=False) == [30, 1, 500]
    assert formed(queued([30], [1], [90], sort=False), Room(9, 999), 0.0, sort=False) == [30, 1, 90]


@pytest.mark.requirement("B5")
def test_lengths_on_the_other_side_still_fit_when_one_side_does_not() -> None:
    """Around 50: 49 is near, 52 would be over the budget, 48 joins; then 10, too short, ends it though 9 inputs fit."""
    assert formed(queued([50], [52, 49, 48, 10, 70]), Room(9, 150), 5) == [50, 49, 48]
    assert formed(queued([50], [51, 52, 20, 45]), Room(9, 999), 6) == [50, 51, 52]
    assert formed(queued([50], [51, 20, 45, 49]), Room(9, 999), 9) == [50, 51, 49, 45]


@pytest.mark.requirement("B4")
def test_packed_a_shorter_one_may_fit_where_a_longer_one_does_not() -> None:
    """Of 100 tokens 60 are taken: 50 does not fit, 30 does, then 10 does, and 5 does not."""
    assert formed(queued([60], [50, 30, 10, 5]), Room(9, 100), padded=False) == [60, 30, 10]


@pytest.mark.requirement("B4")
def test_in_order_of_arrival_the_first_that_does_not_fit_ends_the_batch() -> None:
    """Without sorting nobody overtakes."""
    assert formed(queued([60], [50], [10], sort=False), Room(9, 100), padded=False, sort=False) == [60]


@pytest.mark.requirement("B17")
def test_without_micro_batching_a_batch_is_of_one_request_and_within_both_limits() -> None:
    """In order of arrival; what is over the limits goes in the next batch."""
    queue, policy = queued([5, 5, 5, 5, 5], [5], [90, 3], sort=False), Policy(enabled=False)
    batches = []
    while queue.count:
        taken = form(policy, Room(4, 15), queue, 0.0, padded=False, start_tokens=0.0)
        batches.append([entry[1] for entry in taken])
        assert (queue.count, queue.tokens) == (8 - sum(map(len, batches)), 123 - sum(map(sum, batches)))
    assert batches == [[5, 5, 5], [5, 5], [5], [90], [3]]
    wide = queued([5, 5, 5, 5, 5], sort=False)
    assert len(form(policy, Room(4, 99), wide, 0.0, padded=True, start_tokens=0.0)) == 4


def test_computed_tokens_are_padded_to_the_longest_or_summed() -> None:
    """10, 20 and 30: 90 or 60."""
    entries = [(n, cost, Work("m", [0], [cost], None, 0.0, n), 0) for n, cost in enumerate((10, 20, 30))]
    assert (computed_tokens(entries, padded=True), computed_tokens(entries, padded=False)) == (90, 60)


def ready(policy: Policy, queue: ModelQueue, now: float, *, last_start: float = -1e9) -> bool:
    oldest = queue.oldest()
    assert oldest is not None
    return is_ready(policy, Room(4, 40), queue, oldest, now, last_start=last_start)


@pytest.mark.requirement("B2", "B3")
def test_a_queue_is_ready_when_full_in_inputs_or_tokens_when_its_time_is_up_or_at_once() -> None:
    """And not a moment before."""
    waits = Policy(max_wait=1.0, dispatch_when_idle=False)
    assert ready(waits, queued([1] * 4), 0.0)
    assert not ready(waits, queued([1] * 3), 0.0)
    assert ready(waits, queued([40]), 0.0)
    assert not ready(waits, queued([39]), 0.0)
    assert ready(waits, queued([1]), 1.0)
    assert not ready(waits, queued([1]), 0.99)
    assert ready(Policy(max_wait=1.0), queued([1]), 0.0)
    assert ready(Policy(enabled=False, max_wait=1.0, dispatch_when_idle=False), queued([1]), 0.0)


@pytest.mark.requirement("B18")
def test_starts_are_spaced_but_never_against_the_wait_limit() -> None:
    """Half a second from the last start a full queue waits, then it goes; the end of a wait comes before that."""
    spaced = Policy(max_wait=1.0, min_interval=0.5)
    assert not ready(spaced, queued([1] * 9), 0.4, last_start=0.0)
    assert ready(spaced, queued([1] * 9), 0.5, last_start=0.0)
    assert ready(spaced, queued([1]), 1.0, last_start=0.9)


@pytest.mark.requirement("B2", "B18")
def test_the_clock_wakes_at_the_end_of_the_wait_or_sooner_at_that_of_the_spacing() -> None:
    """A spacing that is over wakes nobody."""
    policy, work = Policy(max_wait=1.0, min_interval=0.5), Work("m", [0], [1], None, 10.0, 1)
    assert due_at(policy, work, 10.0, last_start=-1e9) == 11.0
    assert due_at(policy, work, 10.0, last_start=9.8) == 10.3
    assert due_at(policy, work, 10.3, last_start=9.8) == 11.0
    assert due_at(policy, work, 10.0, last_start=10.9) == 11.0
