"""What is measured of each size, step by step and without noise but what the test puts in."""

import pytest

from embedfleet_server.batching.speeds import Speeds


def seen(*seconds: float, size: int = 8) -> Speeds:
    """Batches of one size and ten tokens a text, in turn."""
    speeds = Speeds()
    for took in seconds:
        speeds.learn(size, size, 10 * size, took)
    return speeds


def needed(speeds: Speeds, noise: float) -> int:
    """How many batches of size 8, that differ by `noise`, it takes until that size is measured."""
    while not speeds.is_measured(8):
        speeds.learn(8, 8, 80, 1 + noise if speeds.batches(8) % 2 else 1 - noise)
    return speeds.batches(8)


def test_what_was_never_seen_has_no_speed() -> None:
    """Nor is it measured, not even roughly."""
    speeds = seen(1.0)
    assert (speeds.batches(9), speeds.seconds(9), speeds.speed(9)) == (0, 0.0, 0.0)
    assert not speeds.is_measured(9)
    assert not speeds.is_measured(9, roughly=True)


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
    assert seen(*[1.0] * 20).start == 0.0


def starting(start: float, slope: float) -> Speeds:
    """Sizes 8 and 16 with texts of 5 to 20 tokens, of a device that takes so long to start and for each token."""
    speeds = Speeds()
    for number in range(200):
        size, length = (8, 16)[number % 2], (5, 10, 20)[number % 3]
        speeds.learn(size, size, size * length, start + slope * size * length)
    return speeds


@pytest.mark.requirement("A1")
def test_one_start_is_learnt_over_all_sizes() -> None:
    """From how the seconds of one size follow its tokens; sizes are then compared with the texts of late."""
    speeds = starting(1.0, 0.01)
    assert speeds.start == pytest.approx(1.0, rel=0.02)
    mean = 35 / 3
    assert speeds.seconds(8) == pytest.approx(1.0 + 0.01 * 8 * mean, rel=0.01)
    assert speeds.seconds(16) == pytest.approx(1.0 + 0.01 * 16 * mean, rel=0.01)
    for _ in range(64):
        speeds.learn(8, 8, 8 * 5, 1.4)
    assert speeds.seconds(16) == pytest.approx(1.0 + 0.01 * 16 * 5, rel=0.01)


@pytest.mark.requirement("A1")
def test_seconds_that_do_not_follow_tokens_are_nearly_all_start() -> None:
    """A tenth is left for the tokens at least, so that no size is believed to be without end."""
    speeds = starting(1.0, 0.0)
    assert speeds.start == pytest.approx(1.0, rel=0.02)
    assert speeds.seconds(8) == pytest.approx(1.0, rel=0.01)


@pytest.mark.requirement("A1")
def test_a_start_is_never_below_zero() -> None:
    """Seconds that grow with the square of the tokens: no start."""
    speeds = Speeds()
    for number in range(200):
        tokens = 50 if number % 2 else 100
        speeds.learn(8, 8, tokens, (tokens / 50) ** 2)
    assert speeds.start == 0.0


@pytest.mark.requirement("A1")
def test_a_full_batch_holds_no_more_than_its_tokens_allow() -> None:
    """Of long texts two and a half times the average, or what the latency target allows."""
    speeds = Speeds()
    for number in range(64):
        length = 100 if number % 8 == 0 else 10
        speeds.learn(8, 8, 8 * length, 1.0)
    mean = 7 / 8 * 10 + 1 / 8 * 100
    assert speeds.tokens(8) == pytest.approx(7 / 8 * 80 + 1 / 8 * 2.5 * 8 * mean)
    speeds.limit = 4.0
    assert speeds.tokens(8) == pytest.approx(7 / 8 * 80 + 1 / 8 * 4 * mean)
    assert speeds.tokens(4) == pytest.approx(7 / 8 * 40 + 1 / 8 * 4 * mean)


@pytest.mark.requirement("A1")
def test_quiet_sizes_are_measured_with_six_batches_noisy_ones_with_ten() -> None:
    """Six are enough where batches take the same; where they are known to differ by 20 %, it takes ten.

    For a first rough look six do in either case.
    """
    quiet, noisy = seen(size=16), seen(*[0.8, 1.2] * 50, size=16)
    assert [needed(quiet, 0.0), needed(noisy, 0.2)] == [6, 10]
    assert not seen(*[1.0] * 5).is_measured(8, roughly=True)
    assert seen(*[0.8, 1.2] * 3).is_measured(8, roughly=True)


@pytest.mark.requirement("A1")
def test_between_these_noise_decides_how_many_batches_it_takes() -> None:
    """A mean deviation of 5.6 % wants an error of 2 % in the mean: 2.8 squared are eight, about."""
    assert needed(seen(*[0.944, 1.056] * 100, size=16), 0.056) == pytest.approx(8, abs=1)


@pytest.mark.requirement("A1")
def test_a_slower_device_is_strange_after_five_batches() -> None:
    """Twice as slow: four may be chance, and one hiccup is none, however long."""
    assert not seen(*[1.0] * 30, *[2.0] * 4).is_strange
    assert seen(*[1.0] * 30, *[2.0] * 5).is_strange
    assert seen(*[1.0] * 30, *[0.5] * 6).is_strange
    assert not seen(*[1.0] * 30, 99.0).is_strange


@pytest.mark.requirement("A1")
def test_noise_alone_is_not_strange() -> None:
    """Batches that differ by half: eight slow ones in a row are no change yet; where batches are quiet they are."""
    assert not seen(*[0.5, 1.5] * 50, *[1.5] * 8).is_strange
    assert seen(*[1.0] * 100, *[1.5] * 10).is_strange


@pytest.mark.requirement("A1")
def test_forgetting_leaves_no_size_and_no_length() -> None:
    """What the device was at its old speed is gone; texts are those that come from now on."""
    speeds = seen(*[1.0] * 30, *[3.0] * 20)
    speeds.forget()
    assert speeds.batches(8) == 0
    assert not speeds.is_strange
    speeds.learn(8, 8, 160, 1.0)
    assert speeds.speed(8) == pytest.approx(160.0)


def test_forgetting_the_others_leaves_one_size() -> None:
    """What is known of it still counts."""
    speeds = seen(*[1.0] * 10)
    speeds.learn(9, 9, 90, 1.0)
    speeds.forget_others(8)
    assert (speeds.batches(8), speeds.batches(9)) == (10, 0)
