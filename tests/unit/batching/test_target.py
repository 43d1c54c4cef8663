"""The budget of tokens that keeps the latency target: the line, the slow end, and a device that changes."""

import random

import pytest

from embedfleet_server.batching.target import TargetBudget


def seen(*batches: tuple[int, float], target: float | None = None) -> TargetBudget:
    """Batches of so many tokens and seconds, of ten tokens an input."""
    budget = TargetBudget()
    for tokens, seconds in batches:
        budget.learn(max(1, tokens // 10), tokens, seconds, target)
    return budget


def tokens(budget: TargetBudget, target: float) -> int:
    most = budget.tokens(target)
    assert most is not None
    return most


def test_before_the_first_batch_nothing_is_known() -> None:
    """No budget, rather than a guess: the initial size is tried."""
    assert TargetBudget().tokens(0.1) is None


@pytest.mark.requirement("A1")
def test_after_one_batch_seconds_are_taken_to_follow_tokens() -> None:
    """1,000 tokens took 100 ms: half of that is 454 tokens, as a slow batch takes a tenth more; never below one."""
    assert tokens(seen((1000, 0.1)), 0.05) == 454
    assert tokens(seen((1000, 0.1)), 1e-6) == 1


@pytest.mark.requirement("A1")
def test_it_goes_no_further_than_twice_the_largest_batch_seen() -> None:
    """The line is not known to hold there; and what was seen long ago counts no more."""
    assert tokens(seen((1000, 0.01), (500, 0.005)), 1.0) == pytest.approx(2000, rel=0.02)
    assert tokens(seen((1000, 0.01), *[(100, 0.001)] * 1000), 1.0) == 200


@pytest.mark.requirement("A1")
def test_the_line_has_a_start() -> None:
    """Batches of 500 to 1,500 tokens, 20 ms and 40 us a token: 91 ms, a slow end of 100, are 1,773 tokens."""
    budget = seen(*[(size, 0.02 + size * 4e-5) for size in (500, 1000, 1500)] * 10)
    assert tokens(budget, 0.1) == pytest.approx((0.1 / 1.1 - 0.02) / 4e-5, rel=0.02)


@pytest.mark.requirement("A1")
@pytest.mark.parametrize("noise", [0.01, 0.05, 0.15])
def test_two_to_four_in_a_hundred_full_batches_are_late_however_noisy(noise: float) -> None:
    """Over 2,000 batches as large as it says, of each noise."""
    rng, budget, late = random.Random(1), seen((1000, 0.06)), 0
    for number in range(2500):
        size = tokens(budget, 0.1)
        seconds = (0.02 + size * 4e-5) * max(0.2, rng.gauss(1, noise))
        late += number >= 500 and seconds > 0.1
        budget.learn(size // 10, size, seconds, 0.1)
    assert 0.005 * 2000 <= late <= 0.045 * 2000


@pytest.mark.requirement("A1")
def test_seconds_that_grow_with_the_square_are_met() -> None:
    """From far too small and from far too large a batch on, within 50 batches."""
    for first in (100, 10_000):
        budget = seen((first, first**2 * 1e-8))
        for _ in range(50):
            size = tokens(budget, 0.1)
            budget.learn(size // 10 or 1, size, size**2 * 1e-8, 0.1)
        assert 0.9 * (0.1 / 1.1) <= tokens(budget, 0.1) ** 2 * 1e-8 <= 0.1


@pytest.mark.requirement("A1")
@pytest.mark.parametrize("factor", [0.25, 2.0, 4.0])
def test_a_device_that_changes_its_speed_is_known_after_five_batches(factor: float) -> None:
    """The budget follows by the factor, at first as far as it was seen."""
    usual = [(size, size * 4e-5) for size in (1000, 2000)] * 20
    before = tokens(seen(*usual), 0.1)
    after = tokens(seen(*usual, *[(size, factor * size * 4e-5) for size in (1000, 2000, 1000, 2000, 1000)]), 0.1)
    assert after == pytest.approx(min(before / factor, 4000), rel=0.1)


@pytest.mark.requirement("A2")
def test_a_hiccup_changes_little() -> None:
    """One batch takes twenty times as long: the budget falls by less than 8 %."""
    usual = [(size, size * 4e-5) for size in (1000, 2000)] * 20
    assert tokens(seen(*usual, (2000, 1.6), target=0.1), 0.1) >= 0.92 * tokens(seen(*usual, target=0.1), 0.1)


@pytest.mark.requirement("A1")
def test_a_first_batch_that_was_slow_is_soon_forgotten() -> None:
    """It took ten times as long, as the first one does: six batches later the budget is what it should be."""
    budget = seen((1000, 0.4))
    for _ in range(6):
        size = tokens(budget, 0.1)
        budget.learn(size // 10 or 1, size, size * 4e-5, 0.1)
    assert tokens(budget, 0.1) >= 900


@pytest.mark.requirement("A1")
def test_batches_far_from_full_do_not_loosen_it() -> None:
    """Small batches, all in time, say nothing of how late full ones may be; full ones that are in time do."""
    line = [(size, size * 4e-5) for size in (500, 1000, 2000)] * 10
    small = seen(*line, *[(500, 500 * 4e-5)] * 100, target=0.1)
    full = seen(*line, *[(2000, 2000 * 4e-5)] * 100, target=0.1)
    assert small._ratio >= 1.09
    assert full._ratio < 1.08


@pytest.mark.requirement("A1")
def test_the_mean_tokens_of_an_input_are_known_from_the_first_batch_on() -> None:
    """At first the plain mean over batches, later a running one."""
    assert seen((100, 0.1)).mean == 10.0
    budget = TargetBudget()
    for tokens_, inputs in ((100, 10), (400, 10)):
        budget.learn(inputs, tokens_, 0.1, None)
    assert budget.mean == pytest.approx(25.0)


@pytest.mark.requirement("A1")
def test_what_was_measured_before_the_first_batch_is_a_budget() -> None:
    """Forwards of 16 to 4,096 tokens, 20 ms and 40 us a token: 91 ms are 1,773 tokens, before any text came."""
    budget = TargetBudget()
    budget.seed([(size, 0.02 + size * 4e-5) for size in (16, 128, 512, 4096)])
    assert budget.mean == 0.0
    assert tokens(budget, 0.1) == pytest.approx((0.1 / 1.1 - 0.02) / 4e-5, rel=0.02)
    assert tokens(budget, 100.0) == 2 * 4096


@pytest.mark.requirement("A1", "A2")
@pytest.mark.parametrize("factor", [0.3, 1.0, 3.0])
def test_once_a_batch_ran_the_measurement_counts_no_more(factor: float) -> None:
    """However wrong it was: from the first batch on the budget is as if nothing had been measured."""
    measured, plain = TargetBudget(), TargetBudget()
    measured.seed([(size, 0.02 + size * 4e-5) for size in (16, 128, 512, 4096)])
    for _ in range(20):
        size = tokens(measured, 0.1)
        for budget in (measured, plain):
            budget.learn(size // 10 or 1, size, factor * (0.02 + size * 4e-5), 0.1)
        assert tokens(measured, 0.1) == tokens(plain, 0.1)
