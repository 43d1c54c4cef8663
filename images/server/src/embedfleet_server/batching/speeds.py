"""What batches of each size cost: the online fit behind the adaptive size.

Each size has the running means of its tokens and seconds. Batches of one size differ in their texts, so that two sizes
are compared with the same texts, those of late: for that one start is learnt over all sizes (seconds = start + slope x
tokens, with a slope to each size), from the deviations within each size, where the size itself plays no part.
"""

import math
from collections import deque
from dataclasses import dataclass, field

LONG = 2.5
"""Times the average tokens that a batch of its size may hold: with more, its tokens rule its speed, not its size."""

_RECENT = 64  # batches by whose texts sizes are compared
_WEIGHT = 0.03  # of the newest batch in running means: half of what is kept is of the last 23
_MEDIAN, _HICCUP = 3, 2.0  # the first batches, of which the median counts; later, twice what is expected is the most
_RIDGE = 1e-3  # variance of relative tokens below which texts are as good as equal; seconds then follow tokens
_MOST_START = 0.9  # of the mean seconds of a size: no fewer may be left for its tokens

ENOUGH, _MOST = 6, 10  # batches at a size before its speed is believed: as many as the error below takes, within these
_ERROR = 0.02  # wanted in the mean, as a mean deviation: noise of 5 % takes six batches
CERTAIN = 24  # batches after which a size is not measured further: 1 % of such noise is left in the mean

_PACE_WEIGHT, _SURPRISE = 0.1, 0.5  # a hiccup moves the pace by 5 % at most; a device twice as slow, by 20 % in five
_STRANGE = 0.2  # deviation of the pace; noise of 5 % moves it by 1 %


@dataclass(slots=True)
class _Rung:
    """What is known of one size."""

    batches: int = 0
    tokens: float = 0.0
    seconds: float = 0.0
    first: list[tuple[float, float, float]] = field(default_factory=list)

    def learn(self, tokens: float, seconds: float, start: float) -> None:
        """Take in one batch, so that one hiccup of the device counts for little."""
        self.batches += 1
        if self.batches <= _MEDIAN:
            self.first.append((seconds / tokens, tokens, seconds))
            _, self.tokens, self.seconds = sorted(self.first)[(self.batches - 1) // 2]
            return
        weight = max(_WEIGHT, 1 / self.batches)
        seconds = min(seconds, _HICCUP * self.expected(tokens, start))
        self.tokens += weight * (tokens - self.tokens)
        self.seconds += weight * (seconds - self.seconds)

    def expected(self, tokens: float, start: float) -> float:
        """Seconds of a batch of this size with so many tokens."""
        start = min(start, _MOST_START * self.seconds)
        return start + (self.seconds - start) * tokens / self.tokens


@dataclass(slots=True)
class Speeds:
    """What is known of all sizes of one model."""

    limit: float = math.inf
    """Inputs of average length beyond which the latency target cuts batches short."""
    _rungs: dict[int, _Rung] = field(default_factory=dict)
    _lengths: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))
    """Mean tokens of a text, of each of the last batches."""
    _length: float = 0.0
    """Mean of these."""
    _together: float = 0.0
    _spread: float = 0.0
    _noise: float = 0.0
    """Mean deviation of seconds from what was expected, as a part of it."""
    _pace: float = 1.0
    """Seconds of the last few batches as a multiple of what was expected."""

    def learn(self, size: int, inputs: int, tokens: int, seconds: float) -> None:
        """Take in a batch of `size`; of fewer inputs, where their tokens ended it."""
        rung = self._rungs.setdefault(size, _Rung())
        if rung.batches:
            self._relate(rung, tokens / rung.tokens, seconds)
        if rung.batches > _MEDIAN:
            self._compare(seconds / rung.expected(tokens, self.start))
        rung.learn(tokens, seconds, self.start)
        self._lengths.append(tokens / inputs)
        self._length = sum(self._lengths) / len(self._lengths)

    def forget(self) -> None:
        """Measure all sizes anew."""
        self._rungs.clear()
        self._lengths.clear()
        self._pace = 1.0

    def forget_others(self, size: int) -> None:
        """Measure all sizes anew but this one."""
        self._rungs = {size: self._rungs[size]}

    # What was learnt.

    @property
    def start(self) -> float:
        """Seconds that a batch takes however few its tokens; 0 until texts of different lengths were seen."""
        return max(0.0, self._together / self._spread) if self._spread else 0.0

    @property
    def is_strange(self) -> bool:
        """Whether the last few batches all took far longer than expected, or all far shorter."""
        return abs(self._pace - 1) > max(_STRANGE, 2 * self._noise)

    def batches(self, size: int) -> int:
        """How many batches of this size were seen."""
        return self._rungs[size].batches if size in self._rungs else 0

    def tokens(self, size: int) -> float:
        """Mean tokens of a full batch of this size, with texts as they were of late."""
        most = min(LONG * size, self.limit) * self._length
        return sum(min(size * length, most) for length in self._lengths) / len(self._lengths)

    def seconds(self, size: int) -> float:
        """Mean seconds of such a batch; 0 when none of this size was seen."""
        return self._rungs[size].expected(self.tokens(size), self.start) if size in self._rungs else 0.0

    def speed(self, size: int) -> float:
        """Tokens a second at this size; 0 when none was seen."""
        if size not in self._rungs:
            return 0.0
        tokens = self.tokens(size)
        return tokens / self._rungs[size].expected(tokens, self.start)

    def is_measured(self, size: int, *, roughly: bool = False) -> bool:
        """Whether enough batches of this size were seen to compare it with its neighbours; `roughly`, with any."""
        exactly = min(_MOST, (self._noise / _ERROR) ** 2)
        return self.batches(size) >= (ENOUGH if roughly else max(ENOUGH, exactly))

    # Inside.

    def _relate(self, rung: _Rung, ratio: float, seconds: float) -> None:
        """Of one batch, how far its seconds are from being in proportion to its tokens: by the start they share.

        `ratio` is of its tokens to the mean of its size. All is weighted by its seconds, as noise is a part of these.
        """
        share = (1 - ratio) / seconds
        beyond = 1 - rung.seconds * ratio / seconds
        self._together += _WEIGHT * (share * beyond - self._together)
        self._spread += _WEIGHT * (share**2 + _RIDGE / rung.seconds**2 - self._spread)

    def _compare(self, ratio: float) -> None:
        """Of one batch, its seconds as a multiple of what its size and tokens made expect."""
        surprise = min(ratio - 1, _SURPRISE)
        self._pace += _PACE_WEIGHT * (1 + surprise - self._pace)
        self._noise += _WEIGHT * (abs(surprise) - self._noise)
