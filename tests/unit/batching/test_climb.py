"""The search, on devices without noise: which sizes it looks at, how often, and which one it keeps."""

import math
from collections import Counter
from collections.abc import Callable

import pytest

from embedfleet_server.batching.climb import Climb, ladder, look_around, search_all
from embedfleet_server.batching.speeds import Speeds

SIZES = ladder(1, 256)


def searched(
    climb: Climb, device: Callable[[int], float], limit: float = math.inf, speeds: Speeds | None = None
) -> tuple[int, Counter[int]]:
    """The size kept in the end, and how many batches of each size it took, in the order of the first of each."""
    speeds, batches = speeds or Speeds(), Counter[int]()
    while True:
        at, done = climb.next(speeds, limit)
        size = climb.sizes[at]
        if done:
            return size, batches
        held = int(min(size, limit))  # of more inputs the target cuts it short
        speeds.learn(size, held, 20 * held, device(held))
        batches[size] += 1


def at(size: int) -> int:
    return SIZES.index(size)


@pytest.mark.requirement("A1")
def test_the_sweep_goes_up_by_twos_then_down_as_long_as_it_is_worth_it() -> None:
    """From 32 up to the end; down to 8, which has less than 0.7 of the best speed, and no further."""
    kept, batches = searched(search_all(SIZES, at(32)), lambda n: 0.004 + 0.0007 * n)
    assert list(batches)[:6] == [32, 64, 128, 256, 16, 8]
    assert kept == 256
    assert 1 not in batches


@pytest.mark.requirement("A1")
def test_the_sweep_stops_upwards_where_it_is_hopeless() -> None:
    """Past 64 batches take three times as long: 128 is seen, 256 is not."""
    kept, batches = searched(search_all(SIZES, at(32)), lambda n: 0.02 + 0.0002 * n * (1 if n <= 64 else 5))
    assert list(batches)[:4] == [32, 64, 128, 16]
    assert 256 not in batches
    assert kept == 64


@pytest.mark.requirement("A1")
def test_a_valley_on_the_way_does_not_hide_what_is_behind_it() -> None:
    """64 is somewhat worse than 32, and 256 is the best of all."""
    kept, _ = searched(search_all(SIZES, at(32)), lambda n: 0.01 + 0.0004 * n + (0.008 if n >= 64 else 0.0))
    assert kept == 256


@pytest.mark.requirement("A1")
@pytest.mark.parametrize("best", [1, 3, 7, 18, 22, 44, 52, 104, 224])
def test_a_peak_between_the_sizes_of_the_sweep_is_found(best: int) -> None:
    """Wherever on the ladder it is."""
    kept, _ = searched(search_all(SIZES, at(32)), lambda n: n * (0.001 + 0.001 * abs(at(n) - at(best)) / 16))
    assert kept == best


@pytest.mark.requirement("A1")
def test_six_batches_at_each_size_and_24_for_the_best_two() -> None:
    """Where the second best is near enough to be the best in truth; else for the best alone."""

    def peak(n: int) -> float:
        return n * 0.001 * (1 + 0.02 * abs(at(n) - at(64)) - (0.002 if n < 64 else 0.0))

    kept, batches = searched(search_all(SIZES, at(32)), peak)
    assert kept == 64
    assert {size: count for size, count in batches.items() if count != 6} == {64: 24, 60: 24}
    kept, batches = searched(search_all(SIZES, at(32)), lambda n: n * 0.001 * (1 + 0.05 * abs(at(n) - at(64))))
    assert {size: count for size, count in batches.items() if count != 6} == {64: 24}


@pytest.mark.requirement("A1", "A2")
def test_of_sizes_that_the_target_cuts_short_one_is_looked_at() -> None:
    """The target allows 45 inputs: 48 stands for all that are larger, and is kept, as more is better here."""
    kept, batches = searched(search_all(SIZES, at(32)), lambda n: 0.005 + 0.001 * n, 45.0)
    assert max(batches) == 48
    assert kept == 48


@pytest.mark.requirement("A1")
def test_below_what_the_target_allows_the_fastest_is_kept() -> None:
    """A cliff past 24, well below the 45 that the target allows."""
    kept, batches = searched(search_all(SIZES, at(32)), lambda n: 0.005 + 0.001 * n * (1 if n <= 24 else 2), 45.0)
    assert max(batches) <= 48
    assert kept == 24


@pytest.mark.requirement("A1")
def test_what_the_target_cuts_short_is_kept_unless_another_is_clearly_faster() -> None:
    """It goes on being right when the target allows more; 44 is faster by 2 %, within what is chance."""
    assert searched(search_all(SIZES, at(32)), lambda n: n * 0.001 * (0.98 if n == 44 else 1.0), 45.0)[0] == 48
    assert searched(search_all(SIZES, at(32)), lambda n: n * 0.001 * (0.95 if n == 44 else 1.0), 45.0)[0] == 44


@pytest.mark.requirement("A1")
def test_when_the_target_allows_less_than_the_smallest_it_is_kept() -> None:
    """It was measured, too."""
    kept, batches = searched(search_all(ladder(8, 256), 0), lambda n: 1.0 + n, 3.0)
    assert kept == 8
    assert batches == {8: 24}


@pytest.mark.requirement("A1")
def test_bounds_that_are_no_step_of_the_sweep_are_looked_at() -> None:
    """From 32 within 20 to 200, both ends are."""
    sizes = ladder(20, 200)
    kept, batches = searched(search_all(sizes, sizes.index(32)), lambda n: 0.05 + 0.0001 * n)
    assert {20, 32, 64, 128, 200} <= set(batches)
    assert kept == 200


@pytest.mark.requirement("A1")
def test_one_size_alone_needs_no_search() -> None:
    """Smallest and largest the same: it is kept."""
    assert searched(search_all([7], 0), lambda n: 0.01 * n)[0] == 7


@pytest.mark.requirement("A2")
@pytest.mark.parametrize(
    ("gain", "kept", "took"), [(0.98, 64, {60: 6, 72: 6}), (1.02, 64, {60: 6, 72: 24}), (1.04, 72, {60: 6, 72: 24})]
)
def test_a_look_around_keeps_the_size_unless_a_neighbour_is_clearly_faster(
    gain: float, kept: int, took: dict[int, int]
) -> None:
    """By 3 %. Only the neighbours are run, and that no more than it takes."""

    def device(n: int) -> float:
        return n * 0.001 / {60: 0.9, 64: 1.0, 72: gain}[n]

    speeds = Speeds()
    for _ in range(50):
        speeds.learn(64, 64, 64 * 20, device(64))
    result, batches = searched(look_around(SIZES, at(64)), device, speeds=speeds)
    assert result == kept
    assert batches == took


@pytest.mark.requirement("A2")
@pytest.mark.parametrize(("size", "neighbour"), [(1, 2), (256, 240)])
def test_a_look_around_at_an_end_of_the_ladder_has_one_neighbour(size: int, neighbour: int) -> None:
    """And keeps within it."""
    speeds = Speeds()
    for _ in range(50):
        speeds.learn(size, size, size * 20, 0.001 * size)
    result, batches = searched(look_around(SIZES, at(size)), lambda n: 0.0011 * n, speeds=speeds)
    assert result == size
    assert set(batches) == {neighbour}


@pytest.mark.requirement("A2")
@pytest.mark.parametrize(("slope", "kept"), [(-0.5, 72), (0.5, 60)])
def test_a_look_around_moves_by_one_rung_at_most(slope: float, kept: int) -> None:
    """However much faster the sizes beyond it are."""
    speeds = Speeds()
    for _ in range(50):
        speeds.learn(64, 64, 64 * 20, 0.064)
    result, batches = searched(look_around(SIZES, at(64)), lambda n: 0.001 * n * (n / 64) ** slope, speeds=speeds)
    assert result == kept
    assert set(batches) <= {60, 72}
