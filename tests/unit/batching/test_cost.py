"""The line through tokens and seconds."""

import pytest

from embedfleet_server.batching.cost import CostLine


def learnt(*batches: tuple[int, float]) -> CostLine:
    line = CostLine()
    for tokens, seconds in batches:
        line.learn(tokens, seconds)
    return line


@pytest.mark.requirement("B5")
def test_one_batch_teaches_the_speed_and_no_slope() -> None:
    """Of 100 tokens in 0.1 s: 1000 a second; what a start is worth is not known and taken for 256 tokens."""
    line = learnt((100, 0.1))
    assert line.tokens_per_second() == pytest.approx(1000)
    assert line.slope() is None
    assert line.start_tokens() == 256.0


@pytest.mark.requirement("B7")
def test_batches_that_took_no_time_tell_no_speed() -> None:
    """A clock that stood still."""
    assert learnt((100, 0.0)).tokens_per_second() is None


@pytest.mark.requirement("B5")
def test_two_batches_of_different_sizes_are_a_line() -> None:
    """Through 100 tokens in 2 s and 300 in 4 s: 10 ms a token, and a start of one second is worth 100 tokens."""
    line = learnt((100, 2.0), (300, 4.0))
    assert line.slope() == pytest.approx(0.01)
    assert line.start_tokens() == pytest.approx(100)


@pytest.mark.requirement("B5")
def test_a_line_that_falls_tells_nothing() -> None:
    """Longer batches that took less time, or as much: chance; there is no slope then."""
    assert learnt((100, 2.0), (300, 1.0)).slope() is None
    assert learnt((100, 2.0), (300, 2.0)).slope() is None


@pytest.mark.requirement("B5")
def test_a_start_is_never_worth_less_than_nothing() -> None:
    """Where seconds grow faster than tokens the line starts below zero: then a start costs nothing."""
    assert learnt((100, 1.0), (300, 9.0)).start_tokens() == 0.0


@pytest.mark.requirement("B5")
def test_a_batch_counts_half_after_34_further_ones() -> None:
    """The mean of tokens, all 0 but for the newest 34, which are 100."""
    line = learnt(*[(0, 1.0)] * 1000, *[(100, 1.0)] * 34)
    assert line.x == pytest.approx(50, abs=0.5)
