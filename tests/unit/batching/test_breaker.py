"""The circuit breaker: when it opens, what it answers meanwhile, and how it closes."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedfleet_server.batching.breaker import TRANSITIONS, Breaker, Event, State
from embedfleet_server.batching.types import Breaking


def opened(at: float = 0.0) -> Breaker:
    """A breaker that ten failures opened."""
    breaker = Breaker()
    for number in range(10):
        breaker.failed(number, "CUDA error", at)
    return breaker


def state(breaker: Breaker) -> State:
    """Read anew each time: a type checker takes the attribute for what it was."""
    return breaker.state


@pytest.mark.requirement("H2")
def test_the_table_has_all_transitions_there_are() -> None:
    """Closed opens; open turns half-open; half-open closes or opens again; nothing else changes a state."""
    assert {(before.value, event.value, after.value) for (before, event), after in TRANSITIONS.items()} == {
        ("closed", "too many failed", "open"),
        ("open", "delay over", "half-open"),
        ("half-open", "probe well", "closed"),
        ("half-open", "probe failed", "open"),
    }


@pytest.mark.requirement("H2")
def test_it_opens_past_the_error_rate_over_the_last_batches() -> None:
    """Ten good ones, then failures: with the tenth of the last twenty half have failed, the eleventh opens it."""
    breaker = Breaker()
    for number in range(10):
        breaker.went_well(number)
    for number in range(10):
        breaker.failed(number, "boom", 0.0)
    assert state(breaker) is State.CLOSED
    breaker.failed(20, "boom", 0.0)
    assert state(breaker) is State.OPEN
    assert breaker.opened == 1


@pytest.mark.requirement("H2")
def test_only_the_last_twenty_batches_count() -> None:
    """A day of good batches does not hide that eleven of the last twenty failed."""
    breaker = Breaker()
    for number in range(1000):
        breaker.went_well(number)
    for number in range(11):
        assert state(breaker) is State.CLOSED
        breaker.failed(number, "boom", 0.0)
    assert state(breaker) is State.OPEN


@pytest.mark.requirement("H2")
def test_a_few_failures_at_the_start_do_not_open_it() -> None:
    """Nine of nine failed: a rate is one only from ten batches on."""
    breaker = Breaker()
    for number in range(9):
        breaker.failed(number, "boom", 0.0)
    assert breaker.refusal(0.0) is None
    assert breaker.may_start(0.0)


@pytest.mark.requirement("H2")
def test_one_bad_input_in_each_batch_does_not_open_it() -> None:
    """Each batch of 64 fails once as formed; of its halves that go well all count, those that fail do not."""
    breaker = Breaker()
    for number in range(0, 700, 7):
        breaker.failed(number, "bad input", 0.0)
        for half in range(6):
            breaker.went_well(number + half)
    assert state(breaker) is State.CLOSED


@pytest.mark.requirement("H2")
def test_open_it_refuses_at_once_with_the_cause_and_the_time_left() -> None:
    """Opened at 100 for five seconds: at 102 the answer names the cause and says three."""
    breaker = opened(100.0)
    refused = breaker.refusal(102.0)
    assert refused is not None
    assert "CUDA error" in refused.reason
    assert refused.retry_after == pytest.approx(3.0)
    assert not breaker.may_start(102.0)
    assert breaker.wake_at() == 105.0


@pytest.mark.requirement("H2")
def test_after_the_delay_one_batch_alone_is_tried() -> None:
    """At 105 work comes in and one batch may start; while it runs no other may, and the door refuses again."""
    breaker = opened(100.0)
    assert breaker.refusal(105.0) is None
    assert breaker.may_start(105.0)
    assert state(breaker) is State.HALF_OPEN
    assert breaker.wake_at() is None
    breaker.started(50)
    breaker.started(51)
    breaker.went_well(51)
    assert not breaker.may_start(106.0)
    refused = breaker.refusal(106.0)
    assert refused is not None
    assert refused.retry_after == 5.0


@pytest.mark.requirement("H2")
def test_a_probe_that_is_well_closes_it() -> None:
    """Then all may start, what failed before is forgotten, and it opens only after ten further batches."""
    breaker = opened()
    assert breaker.may_start(5.0)
    breaker.started(50)
    breaker.went_well(50)
    assert state(breaker) is State.CLOSED
    assert breaker.refusal(5.0) is None
    for number in range(9):
        breaker.failed(number, "boom", 6.0)
    assert state(breaker) is State.CLOSED
    breaker.failed(60, "boom", 6.0)
    assert breaker.wake_at() == 11.0


@pytest.mark.requirement("H2")
def test_each_probe_that_fails_doubles_the_delay_up_to_a_minute() -> None:
    """5, 10, 20, 40, 60, 60 seconds; the cause told is the newest."""
    breaker, now, delays = opened(), 5.0, []
    for number in range(50, 55):
        assert breaker.may_start(now)
        breaker.started(number)
        breaker.failed(number, f"still broken {number}", now)
        delays.append((breaker.wake_at() or 0.0) - now)
        now += delays[-1]
    assert delays == [10.0, 20.0, 40.0, 60.0, 60.0]
    refused = breaker.refusal(now - 1)
    assert refused is not None
    assert "still broken 54" in refused.reason


@pytest.mark.requirement("H2")
def test_batches_started_before_it_opened_decide_nothing() -> None:
    """They end while it is open or half-open; only the probe counts."""
    breaker = opened()
    breaker.went_well(7)
    breaker.failed(8, "late", 1.0)
    assert state(breaker) is State.OPEN
    assert breaker.may_start(5.0)
    breaker.started(50)
    breaker.went_well(9)
    breaker.failed(6, "late", 6.0)
    assert state(breaker) is State.HALF_OPEN
    assert breaker.cause == "CUDA error"


@pytest.mark.requirement("H2")
def test_a_probe_that_shows_nothing_gives_its_place_to_another() -> None:
    """All its callers went away, or memory was short: the next batch is the probe."""
    breaker = opened()
    assert breaker.may_start(5.0)
    breaker.started(50)
    breaker.ended(49)
    assert not breaker.may_start(6.0)
    breaker.ended(50)
    assert breaker.may_start(6.0)
    breaker.started(51)
    breaker.went_well(51)
    assert state(breaker) is State.CLOSED


@pytest.mark.requirement("H2")
@given(
    st.lists(st.tuples(st.sampled_from(["start", "well", "failed", "ended", "wait"]), st.integers(0, 5)), max_size=200)
)
def test_it_never_refuses_for_ever(events: list[tuple[str, int]]) -> None:
    """After any events, once the probe has ended and the longest delay is over, a batch may start; if well, all may."""
    breaker, now, numbers = Breaker(Breaking(window=4, at_least=2)), 0.0, itertools.count()
    latest = 0
    for kind, value in events:
        now += value
        if kind == "start" and breaker.may_start(now):
            latest = next(numbers)
            breaker.started(latest)
        elif kind == "well":
            breaker.went_well(max(0, latest - value))
        elif kind == "failed":
            breaker.failed(max(0, latest - value), "boom", now)
        elif kind == "ended":
            breaker.ended(latest)
        assert (breaker.refusal(now) is None) == breaker.may_start(now)
    breaker.ended(latest)
    assert breaker.may_start(now + 60.0)
    breaker.started(1000)
    breaker.went_well(1000)
    assert state(breaker) is State.CLOSED


def test_an_event_that_is_not_in_the_table_changes_nothing() -> None:
    """A closed breaker has no probe and waits for no delay."""
    assert (State.CLOSED, Event.DELAY_OVER) not in TRANSITIONS
    breaker = Breaker()
    breaker.started(1)
    breaker.ended(1)
    assert state(breaker) is State.CLOSED
