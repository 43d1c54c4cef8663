"""The search for the best size on a ladder of sizes.

First a sweep looks at sizes a factor of two apart, up from the initial one and then down, so that no single hill or
cliff misleads it; around the best one seen the search goes on with half the stride, down to single rungs; the best two
are measured longer, and the fastest is kept. No size is looked at above one whose batches take longer than the target.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from embedfleet_server.batching.speeds import CERTAIN, ENOUGH, Speeds

_STRIDE = 8  # rungs in a factor of two
_HOPELESS = 0.7  # of the best speed on the way: the sweep goes no further in a direction that gives less
_CLEARLY = 1.03  # times the speed of the size kept: two means of 24 batches each differ by so much once in 50 looks
_FINALISTS, _CLOSE = 2, 0.96  # measured longer: so many at most, none slower than this much of the best speed seen


@dataclass(slots=True)
class Climb:
    """One search, among the rungs from `lowest` up to below `limit`."""

    sizes: list[int]
    start: int
    limit: int
    stride: int = _STRIDE
    lowest: int = 0
    favourite: int | None = None
    """A rung that is kept unless another one is clearly faster."""

    def next(self, speeds: Speeds, target: float | None) -> tuple[int, bool]:
        """The rung to run now, and whether the search is over and this is the best one."""
        allowed = range(self.lowest, self._bound(speeds, target))
        while True:
            for at in self._candidates(speeds, target):
                if at in allowed and not speeds.is_measured(self.sizes[at], target):
                    return at, False
            if self.stride == 1:
                return self._decide(speeds, target)
            self.stride //= 2

    def _candidates(self, speeds: Speeds, target: float | None) -> Iterator[int]:
        """The rungs to look at with the present stride."""
        last = len(self.sizes) - 1
        if self.stride == _STRIDE:
            yield from self._sweep(range(self.start, last + _STRIDE, _STRIDE), speeds)
            yield from self._sweep(range(self.start, -_STRIDE, -_STRIDE), speeds)
        else:
            best = self._ranked(speeds, target)[0]
            yield from (best, min(best + self.stride, last), max(best - self.stride, 0))

    def _sweep(self, rungs: range, speeds: Speeds) -> Iterator[int]:
        """From the start in one direction, to the end of the ladder or as far as it is worth it."""
        fastest = 0.0
        for rung in rungs:
            at = min(max(0, rung), len(self.sizes) - 1)
            yield at
            speed = speeds.speed(self.sizes[at])
            fastest = max(fastest, speed)
            if speed < _HOPELESS * fastest:
                return

    def _decide(self, speeds: Speeds, target: float | None) -> tuple[int, bool]:
        """Measure the best few longer, then keep the fastest."""
        ranked = self._ranked(speeds, target)
        for at in ranked[:_FINALISTS]:
            close = self._merit(at, speeds) >= _CLOSE * self._merit(ranked[0], speeds)
            if close and speeds.batches(self.sizes[at]) < CERTAIN:
                return at, False
        return ranked[0], True

    def _ranked(self, speeds: Speeds, target: float | None) -> list[int]:
        """The rungs measured that keep to the target, the best first; the lowest one when none does."""
        rungs = range(self.lowest, self._bound(speeds, target))
        known = [at for at in rungs if speeds.batches(self.sizes[at]) >= ENOUGH]
        return sorted(known, key=lambda at: -self._merit(at, speeds)) or [self.lowest]

    def _merit(self, at: int, speeds: Speeds) -> float:
        return speeds.speed(self.sizes[at]) * (_CLEARLY if at == self.favourite else 1.0)

    def _bound(self, speeds: Speeds, target: float | None) -> int:
        """The lowest rung that is too slow, or else the limit."""
        slow = (at for at in range(self.lowest, self.limit) if speeds.is_slow(self.sizes[at], target))
        return next(slow, self.limit)


def search_all(sizes: list[int], start: int) -> Climb:
    """A search of the whole ladder."""
    return Climb(sizes, start, len(sizes))


def search_below(sizes: list[int], limit: int) -> Climb:
    """A search among single rungs around the best one known below `limit`."""
    return Climb(sizes, 0, limit, stride=1)


def look_around(sizes: list[int], at: int) -> Climb:
    """A look at the two neighbours of a rung, which is kept unless one of them is clearly faster."""
    return Climb(sizes, at, min(at + 2, len(sizes)), stride=1, lowest=max(0, at - 1), favourite=at)


def ladder(smallest: int, largest: int) -> list[int]:
    """Sizes from `smallest` to `largest`: all of them up to 16, then eight to a factor of two.

    They are multiples of high powers of two, as the tiles of devices are.
    """
    sizes, size = {smallest, largest}, 1
    while size < largest:
        sizes.add(size)
        size += 1 << max(0, size.bit_length() - _STRIDE.bit_length())
    return sorted(size for size in sizes if size >= smallest)
