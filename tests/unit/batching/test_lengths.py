"""Waiting inputs by length: buckets, which of them are near, and what stands in front of each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedfleet_server.batching.flow import Flow, length_bucket, one_bucket
from embedfleet_server.batching.types import Work


def flow(*requests: list[int]) -> tuple[Flow, list[Work]]:
    """Requests of inputs of these lengths, the oldest first."""
    made, works = Flow("red", length_bucket), []
    for number, costs in enumerate(requests):
        works.append(Work("m", costs, costs, None, 0.0, number))
        made.push(works[-1])
    return made, works


@pytest.mark.requirement("B5")
@pytest.mark.parametrize(
    ("tokens", "bucket"),
    [(1, 1), (63, 63), (64, 64), (65, 64), (66, 66), (67, 66), (127, 126), (128, 128), (131, 128), (132, 132),
     (255, 252), (256, 256), (263, 256), (264, 264), (511, 504), (512, 512), (527, 512), (528, 528), (8192, 8192)],
)  # fmt: skip
def test_buckets_are_exact_up_to_64_then_32_to_each_doubling(tokens: int, bucket: int) -> None:
    """Steps of 2 from 64 on, of 4 from 128 on, of 8 from 256 on, of 16 from 512 on."""
    assert length_bucket(tokens) == bucket


@pytest.mark.requirement("B5")
def test_the_nearest_lengths_come_first_and_of_two_as_near_the_longer() -> None:
    """Around 20: 20 itself, 21 before 19, then 17, 25, 10, 40."""
    made, _ = flow([40, 10, 25, 19, 21, 20, 17])
    assert list(made.nearest(20)) == [20, 21, 19, 17, 25, 10, 40]
    assert list(made.nearest(22)) == [21, 20, 25, 19, 17, 10, 40]
    assert list(made.nearest(1)) == [10, 17, 19, 20, 21, 25, 40]
    assert list(made.nearest(99)) == [40, 25, 21, 20, 19, 17, 10]


@pytest.mark.requirement("B5")
@given(st.lists(st.integers(1, 64), min_size=1, max_size=30), st.integers(1, 70))
def test_every_length_is_looked_at_once_the_nearest_first(costs: list[int], start: int) -> None:
    """Distances only grow."""
    found = list(flow(costs)[0].nearest(start))
    assert sorted(found) == sorted(set(costs))
    assert [abs(key - start) for key in found] == sorted(abs(key - start) for key in found)


@pytest.mark.requirement("B5")
def test_the_longest_input_of_the_oldest_request_is_where_a_batch_starts() -> None:
    """Not a longer one of a younger request; and what was cancelled is no request any more."""
    made, (oldest, younger) = flow([5, 30, 12], [40, 30, 7])
    assert made.oldest() is oldest
    assert made.oldest_bucket() == 30
    oldest.cancelled = True
    made.forget(oldest)
    assert made.oldest() is younger
    assert made.oldest_bucket() == 40


@pytest.mark.requirement("B16")
def test_a_flow_counts_what_is_pushed_popped_and_forgotten() -> None:
    """In inputs and tokens, of the flow and of the request."""
    made, (first, second) = flow([5, 9], [5])
    assert (made.count, made.tokens) == (3, 19)
    entry = made.pop(5)
    assert entry == (0, 5, first, 0)
    assert (made.count, made.tokens) == (2, 14)
    assert (first.waiting, first.waiting_tokens, first.running) == (1, 9, 1)
    first.cancelled = True
    made.forget(first)
    assert (made.count, made.tokens, first.waiting, first.waiting_tokens) == (1, 5, 0, 0)
    assert made.peek(9) is None
    assert made.peek(5) == (1, 5, second, 0)
    assert list(made.nearest(9)) == [5]


@pytest.mark.requirement("B5", "B20")
def test_lengths_are_told_apart_or_not_as_set_and_age_stays() -> None:
    """Regrouped to one bucket and back, each bucket holds what it held, the oldest in front."""
    made, works = flow([30, 10, 30], [10, 70])
    before = {key: made.peek(key) for key in made.nearest(1)}
    made.regroup(one_bucket)
    assert list(made.nearest(1)) == [0]
    assert made.peek(0) == (0, 30, works[0], 0)
    assert made.oldest_bucket() == 0
    made.regroup(length_bucket)
    assert {key: made.peek(key) for key in made.nearest(1)} == before
    later = Work("m", [50], [50], None, 0.0, 2)
    made.push(later)
    assert list(made.nearest(50)) == [50, 70, 30, 10]
    assert [made.pop(key)[2].number for key in (10, 10, 30, 30, 70, 50)] == [0, 1, 0, 0, 1, 2]
    assert (made.count, made.oldest()) == (0, None)
