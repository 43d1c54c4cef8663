"""The search for the best size on a ladder of sizes.

First a sweep looks at sizes a factor of two apart, up from the initial one and then down, so that no single hill or
cliff misleads it; around the best one seen the search goes on with half the stride, down to single rungs; the best two
are measured longer, and the fastest is kept. Of the sizes that the latency target cuts short one is looked at.
"""

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

from embedfleet_server.batching.speeds import CERTAIN, ENOUGH, Speeds

_STRIDE = 8  # rungs in a factor of two
_HOPELESS = 0.7  # of the best speed on the way: the sweep goes no further in a direction that gives less
_CLEARLY = 1.03  # times the speed of the size kept: two means of 24 batches each differ by so much once in 50 looks
_FINALISTS, _CLOSE = 2, 0.96  # measured longer: so many at most, none slower than this much of the best speed seen


@dataclass(slots=True)
class Climb:
    """One search, among the rungs from `lowest` to `highest`."""

    sizes: list[int]
    start: int
    highest: int
    stride: int = _STRIDE
    lowest: int = 0
    favourite: int | None = None
    """A rung that is kept unless another one is clearly faster."""
    _limit: float = math.inf
    _centre: int = 0

    def next(self, speeds: Speeds, limit: float = math.inf) -> tuple[int, bool]:
        """The rung to run now, and whether the search is over and this is the best one.

        `limit` is the size beyond which the target cuts batches short, as it is known at present.
        """
        self._limit = limit
        while True:
            roughly = self.stride == _STRIDE
            for at in self._candidates(speeds):
                if at in self._allowed and not speeds.is_measured(self.sizes[at], roughly=roughly):
                    return at, False
            if self.stride == 1:
                return self._decide(speeds)
            for at in self._ranked(speeds)[:_FINALISTS]:
                if not speeds.is_measured(self.sizes[at]):
                    return at, False
            self.stride //= 2
            self._centre = self._ranked(speeds)[0]

    @property
    def _roof(self) -> int:
        """The first rung that the target cuts short, which stands for all above it; or the last."""
        return min(bisect_left(self.sizes, self._limit), len(self.sizes) - 1)

    @property
    def _allowed(self) -> range:
        return range(self.lowest, min(self.highest, max(self.lowest, self._roof)) + 1)

    def _candidates(self, speeds: Speeds) -> Iterator[int]:
        """The rungs to look at with the present stride."""
        roof = self._roof
        if self.stride == _STRIDE:
            start = min(self.start, roof)
            yield from self._sweep(range(start, roof + _STRIDE, _STRIDE), speeds)
            yield from self._sweep(range(start, -_STRIDE, -_STRIDE), speeds)
        else:
            yield from (
                min(self._centre, roof),
                min(self._centre + self.stride, roof),
                max(self._centre - self.stride, 0),
            )
            if self._limit < math.inf:
                yield roof

    def _sweep(self, rungs: range, speeds: Speeds) -> Iterator[int]:
        """From the start in one direction, to the end of the ladder or as far as it is worth it."""
        fastest = 0.0
        for rung in rungs:
            at = min(max(0, rung), self._roof)
            yield at
            speed = speeds.speed(self.sizes[at])
            fastest = max(fastest, speed)
            if speed < _HOPELESS * fastest:
                return

    def _decide(self, speeds: Speeds) -> tuple[int, bool]:
        """Measure the best few longer, then keep the fastest."""
        ranked = self._ranked(speeds)
        for at in ranked[:_FINALISTS]:
            close = self._merit(at, speeds) >= _CLOSE * self._merit(ranked[0], speeds)
            if close and speeds.batches(self.sizes[at]) < CERTAIN:
                return at, False
        return ranked[0], True

    def _ranked(self, speeds: Speeds) -> list[int]:
        """The rungs measured, the best first; the lowest one when there is none."""
        known = [at for at in self._allowed if speeds.batches(self.sizes[at]) >= ENOUGH]
        return sorted(known, key=lambda at: -self._merit(at, speeds)) or [self.lowest]

    def _merit(self, at: int, speeds: Speeds) -> float:
        """Its speed; what the target cuts short follows the target, so it stays right when that is known better."""
        favoured = at == self.favourite or self.sizes[at] >= self._limit
        return speeds.speed(self.sizes[at]) * (_CLEARLY if favoured else 1.0)


def search_all(sizes: list[int], start: int) -> Climb:
    """A search of the whole ladder."""
    return Climb(sizes, start, len(sizes) - 1)


def look_around(sizes: list[int], at: int) -> Climb:
    """A look at the two neighbours of a rung, which is kept unless one of them is clearly faster."""
    return Climb(sizes, at, min(at + 1, len(sizes) - 1), stride=1, lowest=max(0, at - 1), favourite=at, _centre=at)


def ladder(smallest: int, largest: int) -> list[int]:
    """Sizes from `smallest` to `largest`: all of them up to 16, then eight to a factor of two.

    They are multiples of high powers of two, as the tiles of devices are.
    """
    sizes, size = {smallest, largest}, 1
    while size < largest:
        sizes.add(size)
        size += 1 << max(0, size.bit_length() - _STRIDE.bit_length())
    return sorted(size for size in sizes if size >= smallest)
