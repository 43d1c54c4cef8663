"""The adaptive batch size on device profiles it was not made with, in virtual time.

Against the best of all fixed sizes within the latency target; batches are full, so the size is all that differs.
"""

import math
import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from embedfleet_server.batching.sizing import AdaptiveSize
from tests.benchmarks.report import Goal, Section, milliseconds, show
from tests.benchmarks.simulated import mixed_lengths

_LARGEST, _INITIAL = 256, 32
_BATCHES, _SETTLED = 2000, 200
_SEEDS = range(12)
_NOISE = 0.05  # standard deviation of the time of a batch: what a busy GPU shows
_SAMPLE = 500  # batches of each fixed size, for its mean and its p95
_NEAR, _QUANTILE = 0.95, 0.95
_FIXED = (*range(1, 64), *range(64, _LARGEST + 1, 4))
_WAITING = sorted(mixed_lengths()[::4])
_UP_TO = (0, *accumulate(_WAITING))
_Batches = Callable[[int, float, float, random.Random], list[int]]


@dataclass(frozen=True, slots=True)
class _Profile:
    """A device: seconds of a batch by the lengths of its texts; `target` in seconds where one is set."""

    name: str
    seconds: Callable[[Sequence[int]], float]
    target: float | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    """One run: when it settled, at what, and how fast and how late it was from batch 200 on."""

    settled: int
    size: int
    speed: float
    slow: float


def _memory_bound(lengths: Sequence[int]) -> float:
    """Weights are read once a batch (30 ms), and a token costs next to nothing until arithmetic is what limits."""
    return 0.030 + max(0.020, 2e-5 * sum(lengths))


def _knee(lengths: Sequence[int]) -> float:
    """A cache that holds 48 texts: the tokens of each one beyond cost three times as much."""
    within = sum(lengths) * min(1.0, 48 / len(lengths))
    return 0.010 + 2e-5 * within + 6e-5 * (sum(lengths) - within)


def _quadratic(lengths: Sequence[int]) -> float:
    """Time grows with the square of what is in the batch: where one fuller than some size no longer fits."""
    return 0.008 + 1e-5 * sum(lengths) + 2e-9 * sum(lengths) ** 2


_PROFILES = (
    _Profile("memory-bound, steep start", _memory_bound),
    _Profile("knee at 48 texts", _knee),
    _Profile("quadratic growth", _quadratic),
    _Profile("memory-bound, target 80 ms", _memory_bound, 0.080),
    _Profile("knee at 48 texts, target 40 ms", _knee, 0.040),
    _Profile("quadratic growth, target 20 ms", _quadratic, 0.020),
)


def measure(say: Callable[[str], None]) -> Section:
    """Each profile with batches of two kinds and many seeds; the worst seed counts."""
    section = Section(
        f"Adaptive batch size, simulated devices: {len(_SEEDS)} seeds of {_BATCHES:,} batches each",
        (
            "device; texts of a batch",
            "best fixed",
            "sizes kept",
            "of best: median",
            "worst",
            "settled: median",
            "worst",
            "p95",
        ),
    )
    cases: list[_Case] = []
    for kind, batches in (("as they come", _mixed), ("of like length", _alike)):
        for profile in _PROFILES:
            best, most = _best_fixed(profile, batches)
            case = _Case(profile, kind, best, most, [_run(profile, batches, seed) for seed in _SEEDS])
            say(f"adaptive, {profile.name}, {kind}: worst {case.speed:.1%} of the best fixed size, {best}")
            section.rows.append(case.row())
            cases.append(case)
    section.goals = _goals(cases)
    section.notes += [
        f"Times vary by {_NOISE:.0%}, normally distributed; texts are those of the mixed load. Of like length: a text "
        "drawn evenly, and those nearest to it of 1,024 waiting, as a full queue gives them with sortByLength.",
        f"Speed and p95 are those from batch {_SETTLED} to {_BATCHES:,}, looks at other sizes included; p95 is that of "
        "the worst seed.",
    ]
    return section


@dataclass(frozen=True, slots=True)
class _Case:
    """All runs of one device with one kind of batches."""

    profile: _Profile
    kind: str
    best: int
    most: float
    runs: Sequence[_Found]

    @property
    def speed(self) -> float:
        """Of the best fixed size's, the worst seed."""
        return min(run.speed for run in self.runs) / self.most

    @property
    def settled(self) -> int:
        """Batches until it settled, the worst seed."""
        return max(run.settled for run in self.runs)

    @property
    def slow(self) -> float:
        """p95 of the seconds of a batch, the worst seed."""
        return max(run.slow for run in self.runs)

    @property
    def of_target(self) -> float:
        """The same as a part of the target; 0 without one."""
        return self.slow / self.profile.target if self.profile.target is not None else 0.0

    def row(self) -> tuple[str, ...]:
        """Its line in the table."""
        sizes = [run.size for run in self.runs]
        middle = float(np.median([run.speed for run in self.runs])) / self.most
        speeds = f"{middle:.1%}", f"{self.speed:.1%}"
        settled = f"{np.median([run.settled for run in self.runs]):.0f}", str(self.settled)
        kept = f"{min(sizes)} to {max(sizes)}"
        return f"{self.profile.name}; {self.kind}", str(self.best), kept, *speeds, *settled, milliseconds(self.slow)


def _goals(cases: Sequence[_Case]) -> list[Goal]:
    """Each claim over all devices, told for each kind of batches."""
    free = [case for case in cases if case.profile.target is None]
    bound = [case for case in cases if case.profile.target is not None]
    return [
        Goal("adaptive: within 5 % of the best fixed size", _told(free, _speed), all(c.speed >= _NEAR for c in free)),
        Goal(
            "adaptive, with a target: within 5 % of the best fixed size that keeps it",
            _told(bound, _speed),
            all(case.speed >= _NEAR for case in bound),
        ),
        Goal(
            f"adaptive: settled within {_SETTLED} batches",
            _told(cases, lambda some: f"{max(case.settled for case in some)}"),
            all(case.settled <= _SETTLED for case in cases),
        ),
        Goal(
            "adaptive, with a target: p95 within it",
            _told(bound, lambda some: f"{max(case.of_target for case in some):.0%} of it"),
            all(case.of_target <= 1 for case in bound),
        ),
    ]


def _speed(cases: Sequence[_Case]) -> str:
    return f"{min(case.speed for case in cases):.1%}"


def _told(cases: Sequence[_Case], of: Callable[[Sequence[_Case]], str]) -> str:
    kinds = dict.fromkeys(case.kind for case in cases)
    return "; ".join(f"{kind}: {of([case for case in cases if case.kind == kind])}" for kind in kinds)


# Full batches: the lengths of at most `size` texts of at most `tokens` together, one if it is longer than that. `at`,
# from 0 to 1, says whose turn it is.


def _mixed(size: int, tokens: float, at: float, draw: random.Random) -> list[int]:
    lengths = draw.choices(_WAITING, k=size)
    return lengths[: max(1, bisect_right(list(accumulate(lengths)), tokens))]


def _alike(size: int, tokens: float, at: float, draw: random.Random) -> list[int]:
    if _tokens_of(_around(size, at)) > tokens:
        size = bisect_right(range(2, size), tokens, key=lambda fewer: _tokens_of(_around(fewer, at))) + 1
    return _WAITING[_around(size, at)]


def _around(size: int, at: float) -> slice:
    """The place in the queue of so many texts nearest in length to the one whose turn it is."""
    start = int(at * len(_WAITING)) - size // 2
    start = max(0, min(len(_WAITING) - size, start))
    return slice(start, start + size)


def _tokens_of(place: slice) -> int:
    return int(_UP_TO[place.stop] - _UP_TO[place.start])


def _measured(profile: _Profile, draw: random.Random, lengths: Sequence[int]) -> float:
    return profile.seconds(lengths) * max(0.5, draw.gauss(1.0, _NOISE))


def _run(profile: _Profile, batches: _Batches, seed: int) -> _Found:
    """The sizer before the device: full batches of as many inputs and tokens as it says."""
    sizer, draw = AdaptiveSize(1, _LARGEST, _INITIAL, profile.target), random.Random(seed)
    settled, tokens, seconds = 0, 0, list[float]()
    for number in range(_BATCHES):
        lengths = batches(sizer.most, sizer.tokens or math.inf, draw.random(), draw)
        taken = _measured(profile, draw, lengths)
        sizer.ran(len(lengths), sum(lengths), taken)
        settled = settled or (number + 1 if sizer.settled else 0)
        if number >= _SETTLED:
            tokens += sum(lengths)
            seconds.append(taken)
    return _Found(settled or _BATCHES, sizer.size, tokens / sum(seconds), float(np.quantile(seconds, _QUANTILE)))


def _best_fixed(profile: _Profile, batches: _Batches) -> tuple[int, float]:
    """The fastest of all fixed sizes whose p95 keeps to the target, and its tokens a second."""
    speeds = {size: speed for size in _FIXED if (speed := _fixed(profile, batches, size)) is not None}
    best = max(speeds, key=speeds.__getitem__)
    return best, speeds[best]


def _fixed(profile: _Profile, batches: _Batches, size: int) -> float | None:
    """Tokens a second, without noise and with turns evenly spread, so that the best of many is not the luckiest."""
    draw = random.Random(size)
    runs = [batches(size, math.inf, (turn + 0.5) / _SAMPLE, draw) for turn in range(_SAMPLE)]
    if profile.target is not None:
        noisy = [_measured(profile, draw, lengths) for lengths in runs]
        if float(np.quantile(noisy, _QUANTILE)) > profile.target:
            return None
    return sum(map(sum, runs)) / sum(map(profile.seconds, runs))


def main() -> None:
    """This part by itself."""
    show(measure(print))


if __name__ == "__main__":
    main()
