"""What is measured of each size, step by step and without noise but what the test puts in."""

import pytest

from embedfleet_server.batching.speeds import Speeds


def seen(*seconds: float, size: int = 8) -> Speeds:
    """Batches of one size and ten tokens a text, in turn."""
    speeds = Speeds()
    for took in seconds:
        speeds.learn(size, 10 * size, took)
    return speeds


def needed(speeds: Speeds, noise: float) -> int:
    """How many batches of size 8, that differ by `noise`, it takes until that size is measured."""
    while not speeds.is_measured(8, None):
        speeds.learn(8, 80, 1 + noise if speeds.batches(8) % 2 else 1 - noise)
    return speeds.batches(8)


def test_what_was_never_seen_has_no_speed() -> None:
    """It is neither measured nor slow."""
    speeds = seen(1.0)
    assert (speeds.batches(9), speeds.seconds(9), speeds.speed(9)) == (0, 0.0, 0.0)
    assert not speeds.is_measured(9, 1.0)
    assert not speeds.is_slow(9, 0.001)


@pytest.mark.requirement("A1")
def test_speed_is_in_tokens_a_second() -> None:
    """80 tokens in half a second."""
    speeds = seen(0.5, 0.5)
    assert speeds.seconds(8) == pytest.approx(0.5)
    assert speeds.speed(8) == pytest.approx(160.0)
    assert speeds.batches(8) == 2


@pytest.mark.requirement("A2")
def test_one_hiccup_counts_for_little() -> None:
    """Of the first three batches the median counts; later one that takes ten times as long counts as twice."""
    assert seen(1.0, 10.0).seconds(8) == pytest.approx(1.0)
    assert seen(10.0, 1.0, 1.1).seconds(8) == pytest.approx(1.1)
    assert seen(1.0, 1.0, 1.0, 10.0).seconds(8) == pytest.approx(1.25)


@pytest.mark.requirement("A1")
def test_the_running_mean_follows_slow_change() -> None:
    """After 100 batches at 1.0 and 46 at 1.5, three quarters of the way are gone: half with each 23."""
    assert seen(*[1.0] * 100, *[1.5] * 46).seconds(8) == pytest.approx(1.375, abs=0.01)


@pytest.mark.requirement("A1")
def test_without_a_spread_of_lengths_seconds_follow_tokens_in_proportion() -> None:
    """Nothing is known better, so that the speed is the same for texts of another length."""
    assert seen(*[1.0] * 20).exponent == pytest.approx(1.0)


@pytest.mark.requirement("A1")
def test_seconds_that_do_not_follow_tokens_have_exponent_zero() -> None:
    """A device that takes the same for short and for long texts: the mean seconds hold for both."""
    speeds = Speeds()
    for number in range(200):
        speeds.learn(8, 40 if number % 2 else 160, 1.0)
    assert speeds.exponent == pytest.approx(0.0, abs=0.01)
    assert speeds.seconds(8) == pytest.approx(1.0, rel=0.001)


@pytest.mark.requirement("A1")
def test_the_exponent_is_bounded() -> None:
    """Neither more than 2 nor below 0, whatever coincidence is in the data."""
    steep, falling = Speeds(), Speeds()
    for number in range(200):
        tokens = 50 if number % 2 else 100
        steep.learn(8, tokens, (tokens / 50) ** 4)
        falling.learn(8, tokens, 50 / tokens)
    assert steep.exponent == 2.0
    assert falling.exponent == 0.0


@pytest.mark.requirement("A1")
def test_quiet_sizes_are_measured_with_six_batches_noisy_ones_with_twenty() -> None:
    """Six are enough where batches take the same; where they are known to differ by 20 %, it takes twenty."""
    quiet, noisy = seen(size=16), seen(*[0.8, 1.2] * 50, size=16)
    assert [needed(quiet, 0.0), needed(noisy, 0.2)] == [6, 20]


@pytest.mark.requirement("A1")
def test_between_these_noise_decides_how_many_batches_it_takes() -> None:
    """A mean deviation of 7 % wants an error of 2 % in the mean: 7/2 squared are twelve, about."""
    assert needed(seen(*[0.93, 1.07] * 100, size=16), 0.07) == pytest.approx(12, abs=1)


@pytest.mark.requirement("A1")
def test_a_size_near_the_target_is_judged_when_it_is_certain() -> None:
    """Its slow end, 1.1 before more is known, 3 % off the target: it takes 24 batches; 5 % off, six."""
    for off in (-0.03, 0.03):
        assert not seen(*[1.0] * 23).is_measured(8, 1.1 * (1 + off))
        assert not seen(*[1.0] * 23).is_slow(8, 1.1 * (1 + off))
        assert seen(*[1.0] * 24).is_measured(8, 1.1 * (1 + off))
        assert seen(*[1.0] * 24).is_slow(8, 1.1 * (1 + off)) == (off < 0)
    for off in (-0.05, 0.05):
        assert seen(*[1.0] * 6).is_measured(8, 1.1 * (1 + off))
        assert seen(*[1.0] * 6).is_slow(8, 1.1 * (1 + off)) == (off < 0)


@pytest.mark.requirement("A2")
def test_a_size_clearly_too_slow_is_left_after_two_batches() -> None:
    """Past five quarters of the target; with less, or after one batch that may be a hiccup, not yet."""
    assert seen(1.26, 1.26).is_slow(8, 1.0)
    assert not seen(1.24, 1.24).is_slow(8, 1.0)
    assert not seen(9.0).is_slow(8, 1.0)
    assert not seen(1.26, 1.26).is_slow(8, None)


@pytest.mark.requirement("A1")
def test_the_slow_end_is_what_three_in_a_hundred_batches_pass() -> None:
    """Of every hundred batches four take 1.5: the slow end is 1.5; of every hundred two: it is below."""
    four = seen(*([*[1.0] * 24, 1.5] * 12))
    assert four.slow_end(8) / four.seconds(8) == pytest.approx(1.5, rel=0.05)
    two = seen(*([*[1.0] * 49, 1.5] * 8))
    assert two.slow_end(8) / two.seconds(8) == pytest.approx(1.0, rel=0.05)


@pytest.mark.requirement("A1")
def test_a_slower_device_is_strange_after_five_batches() -> None:
    """Twice as slow: four may be chance. One hiccup, however long, is not even enough to be no longer calm for long."""
    assert not seen(*[1.0] * 30, *[2.0] * 4).is_strange
    assert seen(*[1.0] * 30, *[2.0] * 5).is_strange
    assert seen(*[1.0] * 30, *[0.5] * 6).is_strange
    assert not seen(*[1.0] * 30, 2.0).is_calm
    assert seen(*[1.0] * 30).is_calm
    assert seen(*[1.0] * 30, 99.0, *[1.0] * 6).is_calm
    assert not seen(*[1.0] * 30, 99.0).is_strange


@pytest.mark.requirement("A1")
def test_noise_alone_is_not_strange() -> None:
    """Batches that differ by 30 %: three slow ones in a row are usual there, and it stays calm."""
    noisy = seen(*[0.7, 1.3] * 50, 1.3, 1.3)
    assert not noisy.is_strange
    assert noisy.is_calm


@pytest.mark.requirement("A1")
def test_forgetting_leaves_nothing_that_the_change_itself_taught() -> None:
    """No sizes, the usual slow end, and calm."""
    speeds = seen(*[1.0] * 30, *[3.0] * 20)
    speeds.forget()
    assert speeds.batches(8) == 0
    assert speeds.is_calm
    for _ in range(3):
        speeds.learn(8, 160, 1.0)
    assert speeds.slow_end(8) == pytest.approx(1.1)
    assert speeds.speed(8) == pytest.approx(160.0)


def test_forgetting_the_others_leaves_one_size() -> None:
    """What is known of it still counts."""
    speeds = seen(*[1.0] * 10)
    speeds.learn(9, 90, 1.0)
    speeds.forget_others(8)
    assert (speeds.batches(8), speeds.batches(9)) == (10, 0)
