"""What batches of each size cost: the online fit behind the adaptive size.

Each size has the running means of its tokens and seconds. Batches of one size differ in their texts, so that two sizes
are compared at equal lengths: over all sizes one exponent is learnt of how seconds follow tokens
(seconds ~ tokens ** exponent), from the deviations within each size, where the size itself plays no part.
"""

from collections import deque
from dataclasses import dataclass, field

_WEIGHT, _LENGTH_WEIGHT = 0.03, 0.02  # of the newest batch in running means: half of what is kept is of the last 23, 34
_MEDIAN, _HICCUP = 3, 2.0  # the first batches, of which the median counts; later, twice what is expected is the most
_RIDGE = 1e-3  # variance of relative tokens below which texts are as good as equal; seconds then follow tokens
_STEEPEST = 2.0  # attention over long texts: seconds follow the square of the tokens

ENOUGH, _MOST = 6, 20  # batches at a size before its speed is believed: as many as the error below takes, within these
_ERROR = 0.02  # wanted in the mean, as a mean deviation: noise of 5 % takes six batches
CERTAIN = 24  # batches after which a size is not measured further: 1 % of such noise is left in the mean
_NEAR = 0.04  # around the target: a size this near to it is judged only when it is certain
_CLEARLY = 1.25  # times the target: too slow without waiting for enough batches

_WINDOW = 200  # recent batches of which the slow end is taken
_SLOW_END = 0.03  # of these may be slower than it: below the 5 % beyond a p95, as it is only estimated
_USUAL = tuple(0.9 + 0.2 * i / 49 for i in range(50))  # taken for seen before any was: noise of 5 %, twice each way

_PACE_WEIGHT, _SURPRISE = 0.1, 0.5  # a hiccup moves the pace by 5 % at most; a device twice as slow, by 20 % in five
_CALM, _STRANGE = 0.03, 0.2  # deviations of the pace; noise of 5 % moves it by 1 %


@dataclass(slots=True)
class _Rung:
    """What is known of one size."""

    batches: int = 0
    tokens: float = 0.0
    seconds: float = 0.0
    first: list[tuple[float, float, float]] = field(default_factory=list)

    def learn(self, tokens: float, seconds: float, exponent: float) -> None:
        """Take in one batch, so that one hiccup of the device counts for little."""
        self.batches += 1
        if self.batches <= _MEDIAN:
            self.first.append((seconds / tokens, tokens, seconds))
            _, self.tokens, self.seconds = sorted(self.first)[(self.batches - 1) // 2]
            return
        weight = max(_WEIGHT, 1 / self.batches)
        seconds = min(seconds, _HICCUP * self.expected(tokens, exponent))
        self.tokens += weight * (tokens - self.tokens)
        self.seconds += weight * (seconds - self.seconds)

    def expected(self, tokens: float, exponent: float) -> float:
        """Seconds of a batch of this size with so many tokens."""
        return float(self.seconds * (tokens / self.tokens) ** exponent)


@dataclass(slots=True)
class Speeds:
    """What is known of all sizes of one model."""

    _rungs: dict[int, _Rung] = field(default_factory=dict)
    _length: float = 0.0
    """Mean tokens of a text."""
    _together: float = 0.0
    _spread: float = 0.0
    _noise: float = 0.0
    """Mean deviation of seconds from what was expected, as a part of it."""
    _pace: float = 1.0
    """Seconds of the last few batches as a multiple of what was expected."""
    _slow_ratio: float = max(_USUAL)
    """Seconds that nearly all batches stay under, as a multiple of the mean of their size."""
    _ratios: deque[float] = field(default_factory=lambda: deque(_USUAL, _WINDOW))

    def learn(self, size: int, tokens: int, seconds: float) -> None:
        """Take in a batch of `size` inputs."""
        rung = self._rungs.setdefault(size, _Rung())
        if rung.batches:
            self._relate(tokens / rung.tokens - 1, seconds / rung.seconds - 1)
        if rung.batches > _MEDIAN:
            self._compare(seconds / rung.expected(tokens, self.exponent))
            self._rank(seconds / rung.seconds)
        rung.learn(tokens, seconds, self.exponent)
        self._length += (_LENGTH_WEIGHT if self._length else 1.0) * (tokens / size - self._length)

    def forget(self) -> None:
        """Measure all sizes anew. How batches differ was last learnt from the change itself: that goes, too."""
        self._rungs.clear()
        self._length, self._pace, self._slow_ratio = 0.0, 1.0, max(_USUAL)
        self._ratios = deque(_USUAL, _WINDOW)

    def forget_others(self, size: int) -> None:
        """Measure all sizes anew but this one."""
        self._rungs = {size: self._rungs[size]}

    # What was learnt.

    @property
    def exponent(self) -> float:
        """How seconds follow tokens: 0 not at all, 1 in proportion."""
        return min(_STEEPEST, max(0.0, (self._together + _RIDGE) / (self._spread + _RIDGE)))

    @property
    def is_strange(self) -> bool:
        """Whether the last few batches all took far longer than expected, or all far shorter."""
        return abs(self._pace - 1) > max(_STRANGE, self._noise)

    @property
    def is_calm(self) -> bool:
        """Whether the last few batches took what was expected, so that the means can be relied on."""
        return abs(self._pace - 1) < max(_CALM, self._noise / 2)

    def batches(self, size: int) -> int:
        """How many batches of this size were seen."""
        return self._rungs[size].batches if size in self._rungs else 0

    def seconds(self, size: int) -> float:
        """Mean seconds of a batch of this size with texts of the present mean length; 0 when none was seen."""
        return self._rungs[size].expected(size * self._length, self.exponent) if size in self._rungs else 0.0

    def slow_end(self, size: int) -> float:
        """Seconds that nearly all batches of this size stay under."""
        return self.seconds(size) * self._slow_ratio

    def speed(self, size: int) -> float:
        """Tokens a second at this size with texts of the present mean length; 0 when none was seen."""
        return size * self._length / self.seconds(size) if size in self._rungs else 0.0

    def is_measured(self, size: int, target: float | None) -> bool:
        """Whether enough batches of this size were seen; of one whose slow end is near the target more are needed."""
        near = target is not None and abs(self.slow_end(size) / target - 1) < _NEAR
        return self.batches(size) >= (CERTAIN if near else self._enough())

    def is_slow(self, size: int, target: float | None) -> bool:
        """Whether batches of this size are known to take longer than the target."""
        if target is None or self.batches(size) < 2:
            return False
        if self.batches(size) < self._enough():
            return self.seconds(size) > _CLEARLY * target
        return self.is_measured(size, target) and self.slow_end(size) > target

    # Inside.

    def _enough(self) -> float:
        return min(_MOST, max(ENOUGH, (self._noise / _ERROR) ** 2))

    def _relate(self, tokens: float, seconds: float) -> None:
        """Of one batch, how far its tokens and its seconds were from the means of its size."""
        self._together += _WEIGHT * (tokens * seconds - self._together)
        self._spread += _WEIGHT * (tokens * tokens - self._spread)

    def _compare(self, ratio: float) -> None:
        """Of one batch, its seconds as a multiple of what its size and tokens made expect."""
        surprise = min(ratio - 1, _SURPRISE)
        self._pace += _PACE_WEIGHT * (1 + surprise - self._pace)
        self._noise += _WEIGHT * (abs(surprise) - self._noise)

    def _rank(self, ratio: float) -> None:
        """Of one batch, its seconds as a multiple of the mean of its size, whatever its tokens."""
        self._ratios.append(ratio)
        self._slow_ratio = sorted(self._ratios)[-1 - int(_SLOW_END * len(self._ratios))]
