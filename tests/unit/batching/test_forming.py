"""Which inputs share a batch, and when it leaves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedfleet_server.batching.core import BatchingCore
from embedfleet_server.batching.flow import Flow, length_bucket, one_bucket
from embedfleet_server.batching.types import Batch, Bound, Policy, Work


def core(policy: Policy | None = None, *, permits: int = 4, padded: bool = True, models: tuple[str, ...] = ("a",),
         devices: tuple[str, ...] = ("cpu",), per_device: int = 1) -> BatchingCore:  # fmt: skip
    """A core with ready models, one device each in turn."""
    made = BatchingCore(permits, Bound(10_000), per_device)
    for number, name in enumerate(models):
        made.add_model(name, policy or Policy())
        made.model_ready(name, devices[number % len(devices)], padded=padded)
    return made


def put(made: BatchingCore, costs: list[int], *, now: float = 0.0, model: str = "a") -> Work:
    """Queue one request."""
    work = made.submit(model, [f"{model}{now}-{i}" for i in range(len(costs))], costs, None, now)
    assert isinstance(work, Work)
    return work


def batch(made: BatchingCore, now: float = 0.0) -> Batch:
    """The next batch, which there must be."""
    found = made.next_batch(now)
    assert found is not None
    return found


def lengths(found: Batch) -> list[int]:
    return [entry[1] for entry in found.entries]


WAITING = Policy(max_batch_size=4, max_wait=0.05, dispatch_when_idle=False)


@pytest.mark.requirement("B2")
def test_a_lone_request_leaves_by_the_clock_and_not_before() -> None:
    """Without dispatchWhenIdle one input waits exactly maxWait, and the core says when to wake."""
    made = core(WAITING)
    put(made, [5], now=1.0)
    assert made.next_batch(1.0) is None
    assert made.wake_at(1.0) == pytest.approx(1.05)
    assert made.next_batch(1.0499) is None
    assert lengths(batch(made, 1.05)) == [5]


@pytest.mark.requirement("B2")
def test_a_full_batch_does_not_wait() -> None:
    """maxBatchSize inputs leave at once, the next ones wait again."""
    made = core(WAITING)
    put(made, [5, 5, 5, 5, 5])
    assert len(batch(made).entries) == 4
    assert made.next_batch(0.0) is None


@pytest.mark.requirement("B3")
def test_an_idle_device_takes_what_there_is_and_batches_grow_while_it_is_busy() -> None:
    """With dispatchWhenIdle the first input goes alone at once; those that come meanwhile share the next batch."""
    made = core(Policy(max_batch_size=8))
    put(made, [5])
    first = batch(made)
    assert lengths(first) == [5]
    for _ in range(5):
        put(made, [5])
    assert made.next_batch(10.0) is None
    made.complete(first, 0.1)
    assert lengths(batch(made)) == [5] * 5


@pytest.mark.requirement("B4")
@pytest.mark.parametrize(("padded", "expected"), [(True, [8, 8, 8, 8]), (False, [8, 8, 8, 8, 4])])
def test_the_token_budget_counts_what_the_model_computes(padded: bool, expected: list[int]) -> None:
    """Four of 8 and one of 4 are 36 tokens packed and 40 padded: of 39 the short one fits only where none is padded."""
    made = core(Policy(max_batch_tokens=39), padded=padded)
    put(made, [8, 8, 8, 8, 4])
    found = batch(made)
    assert lengths(found) == expected
    assert found.tokens <= 39


@pytest.mark.requirement("B4")
def test_an_input_over_the_budget_goes_alone() -> None:
    """One text longer than maxBatchTokens is a batch of its own rather than stuck for ever."""
    made = core(Policy(max_batch_tokens=10))
    put(made, [50, 3])
    assert lengths(batch(made)) == [50]


@pytest.mark.requirement("B5")
def test_like_lengths_share_a_batch_around_the_oldest() -> None:
    """The oldest input's length decides; the nearest lengths join it, the far ones wait."""
    made = core(Policy(max_batch_size=3))
    put(made, [20])
    put(made, [500, 21, 400, 19, 300])
    assert sorted(lengths(batch(made))) == [19, 20, 21]


@pytest.mark.requirement("B5")
def test_a_long_text_is_not_put_off_for_ever() -> None:
    """However many short ones keep coming, every batch holds an input of the oldest work."""
    made = core(Policy(max_batch_size=2))
    put(made, [5, 5])
    first = batch(made)
    long = put(made, [400])
    put(made, [5] * 20)
    made.complete(first, 0.1)
    assert batch(made).entries[0][2] is long


@pytest.mark.requirement("B5")
def test_padding_that_costs_more_than_a_forward_is_not_shared() -> None:
    """Two inputs of 10 and 500 tokens go apart when starting a forward costs 50 tokens, together when it costs 5000."""
    apart, together = core(), core()
    for tokens in (100, 200, 300):
        apart.costs()["a"].learn(tokens, 0.001 * (50 + tokens))
        together.costs()["a"].learn(tokens, 0.001 * (5000 + tokens))
    put(apart, [10, 500])
    put(together, [10, 500])
    assert lengths(batch(apart)) == [500]
    assert sorted(lengths(batch(together))) == [10, 500]


@pytest.mark.requirement("B5")
def test_without_sorting_the_order_of_arrival_is_kept() -> None:
    """sortByLength off: first come, first served, whatever the lengths."""
    made = core(Policy(max_batch_size=3, sort_by_length=False))
    put(made, [500, 1, 400, 2, 300])
    assert lengths(batch(made)) == [500, 1, 400]


@pytest.mark.requirement("B1")
def test_a_model_does_not_wait_for_another_ones_queue() -> None:
    """Twelve models, one with a thousand inputs waiting: every other model's input leaves in its turn by age."""
    names = tuple(f"m{i}" for i in range(12))
    made = core(models=names, devices=tuple(f"d{i}" for i in range(12)), permits=12)
    put(made, [5] * 1000, model="m0")
    for name in names[1:]:
        put(made, [5], model=name)
    assert {batch(made).model for _ in range(12)} == set(names)


@pytest.mark.requirement("B6")
def test_permits_bound_the_batches_under_way_over_all_models() -> None:
    """Two permits, three devices with work: two batches run, the third starts when one ends."""
    made = core(permits=2, models=("a", "b", "c"), devices=("x", "y", "z"))
    for name in "abc":
        put(made, [5], model=name)
    first, _second = batch(made), batch(made)
    assert made.next_batch(0.0) is None
    made.complete(first, None)
    assert batch(made).model == "c"
    assert made.stats().active_batches == 2


@given(st.lists(st.integers(1, 600), min_size=1, max_size=200), st.booleans(), st.booleans())
def test_every_input_leaves_exactly_once(costs: list[int], padded: bool, sort: bool) -> None:
    """Whatever the lengths, batches respect both limits and together hold each input once."""
    policy = Policy(max_batch_size=7, max_batch_tokens=1000, sort_by_length=sort)
    made = core(policy, padded=padded)
    put(made, costs)
    seen: list[int] = []
    while (found := made.next_batch(0.0)) is not None:
        assert len(found.entries) <= 7
        assert found.tokens <= 1000 or len(found.entries) == 1
        seen += [entry[3] for entry in found.entries]
        made.complete(found, 0.01)
    assert sorted(seen) == list(range(len(costs)))
    assert made.is_idle


@given(st.integers(1, 100_000))
def test_a_bucket_wastes_little(tokens: int) -> None:
    """An input is less than 1/31 longer than the shortest one of its bucket, and exact up to 64 tokens."""
    bucket = length_bucket(tokens)
    assert bucket <= tokens
    assert (tokens - bucket) * 31 < tokens
    assert tokens > 64 or bucket == tokens


def test_regrouping_keeps_age_and_counts() -> None:
    """A model that turns out not to pad is served in order of arrival again."""
    flow = Flow("", length_bucket)
    flow.push(Work("a", list("xyz"), [30, 10, 20], None, 0.0, 1))
    flow.regroup(one_bucket)
    assert [flow.pop(0)[1] for _ in range(3)] == [30, 10, 20]
    assert (flow.count, flow.tokens) == (0, 0)


@pytest.mark.requirement("B3")
def test_a_free_place_on_a_device_that_runs_several_is_idle() -> None:
    """A device that takes four at once: with one running, the next lone input leaves at once too, the fifth waits."""
    made = core(Policy(max_wait=9.0), permits=8, per_device=4)
    for _ in range(4):
        put(made, [5])
        assert lengths(batch(made)) == [5]
    put(made, [5])
    assert made.next_batch(0.0) is None


@pytest.mark.requirement("B4", "B5")
def test_lengths_beyond_one_that_does_not_fit_are_passed_over_and_others_still_looked_at() -> None:
    """Of 70, 72 and 50 tokens beside four of 64, padded: the first is over the budget, so is the second; 50 fits."""
    made = core(Policy(max_batch_size=10, max_batch_tokens=330))
    put(made, [64] * 4)
    put(made, [70, 72, 50])
    assert sorted(lengths(batch(made))) == [50, 64, 64, 64, 64]
