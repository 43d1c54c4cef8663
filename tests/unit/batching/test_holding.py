"""The size once found: what makes it fall, grow back and be looked for anew, on devices without noise."""

from collections.abc import Callable

import pytest

from embedfleet_server.batching.climb import ladder
from embedfleet_server.batching.sizing import AdaptiveSize

Device = Callable[[int], float]


def linear(n: int) -> float:
    return 0.01 + 0.001 * n


def run(sized: AdaptiveSize, device: Device, batches: int) -> list[int]:
    """Full batches of texts of 20 tokens; the size of each."""
    sizes = []
    for _ in range(batches):
        sizes.append(sized.size)
        sized.ran(sized.size, 20 * sized.size, device(sized.size))
    return sizes


def settled(device: Device = linear, target: float | None = None, largest: int = 256) -> AdaptiveSize:
    """After 400 batches."""
    sized = AdaptiveSize(largest=largest, target=target)
    run(sized, device, 400)
    assert sized.settled
    return sized


@pytest.mark.requirement("A2")
def test_one_batch_in_twenty_a_little_late_makes_the_size_fall() -> None:
    """The device slows by 8 % over 200 batches, and every twentieth takes 10 % longer: in the end none is late."""
    number, target, late = 0, 0.1, []

    def drifting(n: int) -> float:
        return linear(n) * (1 + 0.08 * max(0, min(number - 300, 200)) / 200) * (1.1 if number % 20 == 0 else 1.0)

    sized = AdaptiveSize(target=target)
    for number in range(1000):  # noqa: B007  # the device reads it
        seconds = drifting(sized.size)
        late.append(seconds > 1.01 * target)
        sized.ran(sized.size, 20 * sized.size, seconds)
    assert sum(late[700:]) == 0


@pytest.mark.requirement("A2")
def test_batches_that_are_never_of_a_size_looked_at_shrink_it_when_late() -> None:
    """From 256 on, batches of 199 that take twice the target: the size falls, rung by rung, until it is below them."""
    sized = AdaptiveSize(initial=256, target=0.1)
    for _ in range(100):
        inputs = min(sized.size, 199)
        sized.ran(inputs, 20 * inputs, 0.2 if inputs == 199 else 0.05)
    assert sized.size < 199


@pytest.mark.requirement("A2")
def test_batches_that_say_nothing_change_nothing() -> None:
    """Without inputs, tokens or seconds: a clock that stood still, a batch whose callers all left."""
    sized = settled(target=0.1)
    size = sized.size
    for said in ((0, 20, 9.0), (size, 0, 9.0), (size, 20 * size, 0.0), (-1, 20, 9.0), (size, -1, 9.0), (size, 9, -1.0)):
        for _ in range(50):
            sized.ran(*said)
        assert (sized.size, sized.settled) == (size, True)


@pytest.mark.requirement("A2")
def test_a_batch_of_one_input_and_one_token_counts() -> None:
    """The smallest there is."""
    sized = AdaptiveSize(smallest=1, largest=1, initial=1)
    for _ in range(24):
        sized.ran(1, 1, 0.1)
    assert sized.settled


@pytest.mark.requirement("A2")
def test_after_a_failure_it_takes_20_batches_in_a_row_to_grow_by_a_rung() -> None:
    """A failure on the way begins the count anew, and takes a rung again."""
    sized = settled()
    assert sized.size == 256
    run(sized, linear, 7)
    sized.failed()
    assert run(sized, linear, 20) == [240] * 20
    assert sized.size == 256
    for _ in range(3):
        sized.failed()
    assert run(sized, linear, 19) == [208] * 19
    sized.failed()
    assert run(sized, linear, 20) == [192] * 20
    assert run(sized, linear, 20) == [208] * 20
    assert run(sized, linear, 40) == [224] * 20 + [240] * 20
    assert run(sized, linear, 100) == [256] * 100


@pytest.mark.requirement("A2")
def test_a_failure_at_the_smallest_size_leaves_it() -> None:
    """There is nothing below."""
    sized = AdaptiveSize(smallest=4, largest=9, initial=5)
    for size in (4, 4, 4):
        sized.failed()
        assert sized.size == size


@pytest.mark.requirement("A2")
def test_failures_cut_the_size_in_use_not_one_it_might_have() -> None:
    """At 32 of 256 one failure leads to the rung below 32."""
    sized = AdaptiveSize(initial=32)
    sized.failed()
    assert sized.size == 30


@pytest.mark.requirement("A1")
def test_it_starts_at_the_largest_rung_not_above_the_initial_size() -> None:
    """Within its bounds: 100 is no rung, 3 and 999 are outside."""
    starts = [AdaptiveSize(smallest=10, largest=200, initial=initial).size for initial in (32, 100, 10, 3, 999)]
    assert starts == [32, 96, 10, 10, 200]


@pytest.mark.requirement("A2")
def test_a_thousand_batches_after_it_settled_the_neighbours_are_looked_at_once() -> None:
    """Not before; then it stays, as none is faster."""
    sized = AdaptiveSize()
    has_settled: list[bool] = []
    while has_settled.count(True) < 1000 or sized.settled:
        has_settled.append(sized.settled)
        sized.ran(sized.size, 20 * sized.size, linear(sized.size))
    rungs = ladder(1, 256)
    below = rungs[rungs.index(256) - 1]
    assert has_settled.index(True) == len(has_settled) - 1000
    assert set(run(sized, linear, 40)) == {below, 256}
    assert (sized.settled, sized.size) == (True, 256)


@pytest.mark.requirement("A1")
def test_texts_that_make_the_device_twice_as_fast_start_a_new_search() -> None:
    """The size kept is no longer the best known only for what was."""
    sized = settled(lambda n: 0.02 + 0.001 * n + max(0, n - 64) * 0.01)
    assert sized.size == 64
    assert 256 in run(sized, lambda n: 0.02 + 0.0002 * n, 300)
    assert sized.size == 256


@pytest.mark.requirement("A1")
def test_a_device_somewhat_slower_or_faster_is_the_same_device() -> None:
    """By 15 %: it holds still. By 30 %, slowly come: it is looked at anew."""
    for factor in (0.87, 1.15):
        sized = settled()
        assert set(run(sized, lambda n, factor=factor: factor * linear(n), 300)) == {256}  # type: ignore[misc]
    sized = settled()
    sizes = []
    for step in range(600):
        sizes += run(sized, lambda n, step=step: (1 + min(0.3, step / 1000)) * linear(n), 1)  # type: ignore[misc]
    assert set(sizes) > {256}


@pytest.mark.requirement("A1")
def test_far_too_late_batches_after_a_change_of_the_device_lead_to_a_search_of_all_sizes() -> None:
    """Four times as slow with a target: within 100 batches none is late, and when it is fast again it grows back."""
    sized = settled(target=0.2)
    before = sized.size
    assert linear(before) <= 0.2
    slow = run(sized, lambda n: 4 * linear(n), 300)
    assert all(4 * linear(size) <= 0.2 for size in slow[100:])
    assert max(slow[100:]) >= 30
    assert run(sized, linear, 300)[-1] == before
