"""Whether and when to try again."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedfleet.retry import (
    FIRST_TOKENS,
    LONGEST_WAIT_SECONDS,
    MOST_ATTEMPTS,
    PATIENCE_SECONDS,
    RUN_PATIENCE_SECONDS,
    Attempt,
    Budget,
    Kind,
    backoff,
    classify,
    decide,
)

RETRIED = [kind for kind in Kind if kind is not Kind.FINAL]


@pytest.mark.parametrize(
    ("status", "code", "accepted", "kind"),
    [
        (429, "queue_full", False, Kind.BUSY),
        (503, "shutting_down", False, Kind.AWAY),
        (503, "device_lost", True, Kind.LOST),
        (503, "model_loading", False, Kind.LOADING),
        (503, "model_failing", False, Kind.FAILING),
        (503, "model_failed", False, Kind.FINAL),
        (500, "internal", True, Kind.FAILED),
        (500, "internal", False, Kind.AWAY),
        (504, "deadline_exceeded", True, Kind.FAILED),
        (408, "request_timeout", False, Kind.LOST),
        (422, "invalid_input", False, Kind.FINAL),
        (404, "model_not_found", False, Kind.FINAL),
        (503, "a_code_of_later", None, Kind.FINAL),
        (502, None, None, Kind.LOST),
        (503, None, None, Kind.AWAY),
        (404, None, None, Kind.FINAL),
        (302, None, None, Kind.FINAL),
    ],
)
def test_the_kind_follows_the_code_else_the_status(
    status: int, code: str | None, accepted: bool | None, kind: Kind
) -> None:
    """The server's stable code decides; an answer without one is a proxy's and goes by its status."""
    assert classify(status, code, accepted) is kind


@given(
    kind=st.sampled_from(RETRIED),
    number=st.integers(1, 2),
    asked=st.none() | st.floats(0, 60),
    quiet=st.floats(0, 29),
    seed=st.integers(),
)
def test_a_wait_is_never_shorter_than_asked(
    kind: Kind, number: int, asked: float | None, quiet: float, seed: int
) -> None:
    """Retry-After is a lower bound, passed by at most half; else the wait is the back-off less at most half."""
    wait = decide(Attempt(number, kind, quiet, asked), random.Random(seed))
    assert wait is not None
    if asked is None:
        assert backoff(number) / 2 <= wait <= backoff(number)
    else:
        assert asked <= wait <= 1.5 * asked


@given(st.integers(1, 10_000))
def test_the_back_off_is_bounded(number: int) -> None:
    """It doubles up to a limit, however many failures there were."""
    assert 0 < backoff(number) <= LONGEST_WAIT_SECONDS
    assert backoff(number) <= backoff(number + 1)


@pytest.mark.parametrize("kind", RETRIED)
def test_patience_ends_without_progress(kind: Kind) -> None:
    """A request gives up once nothing of the client was answered for as long as its kind is patient, and not before."""
    limit = PATIENCE_SECONDS[kind]
    assert decide(Attempt(1, kind, limit, 1.0), random.Random(1)) is None
    assert decide(Attempt(1, kind, limit - 0.1, 1.0), random.Random(1)) is not None


@pytest.mark.parametrize("kind", list(MOST_ATTEMPTS))
def test_some_kinds_end_by_count(kind: Kind) -> None:
    """What may be this request's own fault is not tried for ever, even while others are answered."""
    assert decide(Attempt(MOST_ATTEMPTS[kind], kind, 0.0), random.Random(1)) is None
    assert decide(Attempt(MOST_ATTEMPTS[kind] - 1, kind, 0.0), random.Random(1)) is not None


def test_a_full_server_is_tried_on_while_others_are_answered() -> None:
    """Refusals alone never end a request while the client makes progress."""
    assert decide(Attempt(100_000, Kind.BUSY, 1.0, 0.5), random.Random(1)) is not None


def test_what_is_final_is_not_tried_again() -> None:
    """The same request would fail again."""
    assert decide(Attempt(1, Kind.FINAL, 0.0, 1.0), random.Random(1)) is None


@pytest.mark.parametrize("kind", list(RUN_PATIENCE_SECONDS))
def test_a_run_waits_longer_for_its_server(kind: Kind) -> None:
    """What a call has already is worth waiting for, minutes; a call that has nothing is told soon."""
    quiet = PATIENCE_SECONDS[kind] + 60
    assert decide(Attempt(1, kind, quiet), random.Random(1)) is None
    assert decide(Attempt(1, kind, quiet, in_a_run=True), random.Random(1)) is not None


@pytest.mark.requirement("K3")
@given(st.lists(st.booleans(), max_size=400))
def test_repeated_work_is_bounded_by_the_budget(answered: list[bool]) -> None:
    """At one moment no more is repeated than a tenth of the answers and the few that everyone may."""
    budget, repeated = Budget(), 0
    for is_answer in answered:
        if is_answer:
            budget.answered()
        elif budget.take(0.0) == 0:
            repeated += 1
    assert repeated <= FIRST_TOKENS + 0.1 * sum(answered) + 1e-6


def test_a_budget_that_is_spent_still_lets_one_go_each_second() -> None:
    """No run stands still for ever: what is not paid by answers is paid by time, one after the other."""
    budget = Budget()
    for _ in range(int(FIRST_TOKENS)):
        assert budget.take(0.0) == 0
    assert [budget.take(0.0) for _ in range(3)] == [1, 2, 3]
    assert budget.take(10.0) == 0
