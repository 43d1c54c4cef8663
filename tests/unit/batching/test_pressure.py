"""Memory: levels and what follows from them, and the tokens that a batch may hold within a limit."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedfleet_server.batching.pressure import BatchMemory, Level, Pressure, Reading, Thresholds, level_after


def pressure_at(*shares: float) -> Pressure:
    """One place, read at these shares in turn."""
    pressure = Pressure()
    for share in shares:
        pressure.read({"cuda:0": Reading(share * 80_000, 80_000)})
    return pressure


@pytest.mark.requirement("A3")
@pytest.mark.parametrize(
    ("shares", "level"),
    [
        ([], Level.NORMAL),
        ([0.799], Level.NORMAL),
        ([0.80], Level.WARNING),
        ([0.899], Level.WARNING),
        ([0.90], Level.CRITICAL),
        ([0.90, 0.86], Level.CRITICAL),
        ([0.90, 0.84], Level.WARNING),
        ([0.90, 0.76], Level.WARNING),
        ([0.90, 0.74], Level.NORMAL),
        ([0.80, 0.76], Level.WARNING),
        ([0.80, 0.86], Level.WARNING),
        ([0.80, 0.74], Level.NORMAL),
        ([0.80, 0.74, 0.76], Level.NORMAL),
    ],
)
def test_a_level_is_entered_at_its_threshold_and_left_five_points_below(shares: list[float], level: Level) -> None:
    """Warning at 80 %, critical at 90 %; between a threshold and five points below it the level before holds."""
    assert pressure_at(*shares).level is level


@pytest.mark.requirement("A3")
@given(st.sampled_from(Level), st.floats(0, 1.2))
def test_a_reading_that_stays_keeps_its_level(before: Level, share: float) -> None:
    """Whatever came before, the same reading again changes nothing: levels do not flap."""
    level = level_after(before, share, Thresholds())
    assert level_after(level, share, Thresholds()) is level


@pytest.mark.requirement("A3")
def test_the_fullest_place_decides() -> None:
    """Host normal, one device at the warning, one critical: critical; and the message names that device."""
    pressure = Pressure()
    level = pressure.read({"host": Reading(1, 10), "cuda:0": Reading(85, 100), "cuda:1": Reading(9.5, 10)})
    assert level is Level.CRITICAL
    assert pressure.message() == "memory of cuda:1 is 95% full; critical at 90%"


@pytest.mark.requirement("A3")
def test_a_place_no_longer_read_counts_no_more() -> None:
    """A device whose last model is gone does not hold the service at critical."""
    pressure = pressure_at(0.95)
    assert pressure.read({"host": Reading(1, 10)}) is Level.NORMAL
    assert pressure.message() == ""


def test_a_total_that_is_not_known_is_not_full() -> None:
    """A container without a memory limit reads a total of nothing."""
    assert Pressure().read({"host": Reading(100, 0)}) is Level.NORMAL


@pytest.mark.requirement("A3")
@pytest.mark.parametrize(("share", "budget"), [(0.5, 16384), (0.8, 8192), (0.9, 4096)])
def test_levels_shrink_batches(share: float, budget: int) -> None:
    """At the warning half the token budget, at critical a quarter."""
    assert pressure_at(share).within(16384) == budget


@pytest.mark.requirement("A3")
def test_a_budget_never_falls_to_nothing() -> None:
    """A quarter of three tokens is one."""
    assert pressure_at(0.95).within(3) == 1


@pytest.mark.requirement("A3")
def test_only_critical_refuses_at_the_door() -> None:
    """With a delay and the cause; at the warning batches are smaller, and work still comes in."""
    assert pressure_at(0.5).refusal() is None
    assert pressure_at(0.85).refusal() is None
    refused = pressure_at(0.95).refusal()
    assert refused is not None
    assert refused.retry_after is not None
    assert refused.retry_after > 0
    assert "cuda:0 is 95% full" in refused.reason


@pytest.mark.requirement("A3")
def test_before_the_first_batch_nothing_is_predicted() -> None:
    """None says so, for the caller to fall back on the configured budget."""
    assert BatchMemory().predicted_mib(100) is None
    assert BatchMemory().tokens_within(100.0) is None


@pytest.mark.requirement("A3")
def test_the_fit_finds_start_and_slope() -> None:
    """Batches took 50 MiB and 0.1 a token: 10,000 tokens are predicted to take 1050, and as many fit in 1050."""
    memory = BatchMemory()
    for tokens in (100, 4000, 1000, 2000, 300):
        memory.learn(tokens, 50 + 0.1 * tokens)
    assert memory.predicted_mib(10_000) == pytest.approx(1050)
    assert memory.tokens_within(1050.5) == pytest.approx(10_000, abs=6)
    assert memory.tokens_within(10.0) == 0


@pytest.mark.requirement("A3")
def test_a_start_of_less_than_a_mebibyte_is_one() -> None:
    """Half a MiB and a quarter more with each token: 2 MiB hold six. A line from below zero has none."""
    memory, steep = BatchMemory(), BatchMemory()
    for tokens in (1, 2, 3):
        memory.learn(tokens, 0.5 + 0.25 * tokens)
        steep.learn(tokens, 2.0 * tokens - 1.0)
    assert memory.tokens_within(2.01) == 6
    assert steep.tokens_within(2.0) == 1


@pytest.mark.requirement("A3")
def test_batches_of_one_size_predict_in_proportion() -> None:
    """Without two sizes there is no line; twice the tokens then take twice the memory, which is never too little."""
    memory = BatchMemory()
    memory.learn(1000, 100.0)
    memory.learn(1000, 100.0)
    assert memory.predicted_mib(2000) == pytest.approx(200)
    assert memory.tokens_within(50.0) == 500


@pytest.mark.requirement("A3")
def test_a_batch_that_took_more_than_its_line_raises_all_predictions_for_a_while() -> None:
    """Long texts took 30 % more than the line; that is expected of the next batch, and hardly so 1500 batches later."""
    memory, rng = BatchMemory(), random.Random(0)
    for _ in range(100):
        tokens = rng.randint(100, 4000)
        memory.learn(tokens, 0.1 * tokens)
    memory.learn(4000, 520.0)
    predicted = memory.predicted_mib(4000)
    assert predicted is not None
    assert predicted >= 510
    for _ in range(1500):
        tokens = rng.randint(100, 4000)
        memory.learn(tokens, 0.1 * tokens)
    assert memory.predicted_mib(4000) == pytest.approx(400, rel=0.02)


@pytest.mark.requirement("A3")
def test_with_noise_few_batches_pass_the_limit_they_were_formed_within() -> None:
    """Peaks differ by 10 %: of 250 batches as large as the limit allows, at most one in 25 passes it."""
    rng, memory, over = random.Random(0), BatchMemory(), 0
    for number in range(600):
        allowed = memory.tokens_within(1000.0) or 1000
        tokens = allowed if number % 2 else rng.randint(100, allowed)
        peak = (80 + 0.2 * tokens) * rng.uniform(0.95, 1.05)
        over += number >= 100 and peak > 1000.0
        memory.learn(tokens, peak)
    assert over <= 10


@pytest.mark.requirement("A3")
@given(
    st.lists(st.tuples(st.integers(1, 100_000), st.floats(0.01, 1e5)), min_size=1, max_size=30), st.floats(0.01, 1e5)
)
def test_as_many_tokens_as_fit_are_predicted_to_fit(seen: list[tuple[int, float]], limit: float) -> None:
    """Whatever was seen, the tokens within a limit are predicted to stay within it, and more tokens take more."""
    memory = BatchMemory()
    for tokens, peak in seen:
        memory.learn(tokens, peak)
    within = memory.tokens_within(limit)
    assert within is not None
    predicted, more = memory.predicted_mib(within), memory.predicted_mib(within + 1000)
    assert predicted is not None
    assert more is not None
    assert within == 0 or predicted <= limit * (1 + 1e-6)
    assert predicted <= more


def test_a_reading_that_says_nothing_is_not_learnt() -> None:
    """No tokens, or no memory seen to be taken: the device has no counter, or another batch reset it."""
    memory = BatchMemory()
    memory.learn(0, 100.0)
    memory.learn(100, 0.0)
    assert memory.predicted_mib(100) is None
