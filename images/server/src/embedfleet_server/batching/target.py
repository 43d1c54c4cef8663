"""The latency target as a budget of tokens: the most whose batch is expected to be done in time, but for a few.

Expected seconds are a line through the recent batches, by the tokens that the model computes. How far the slow ones lie
above it is tracked batch by batch, as a quantile: a late batch raises it by much, one in time lowers it by little, so
that the two balance where the wanted part is late, whatever the shape of the noise.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from embedfleet_server.batching.cost import CostLine

_MEAN_WEIGHT = 0.02  # of the newest batch in the mean tokens of an input: half of what is kept is of the last 34
_LATE = 0.025  # of the batches may be late: half of what a p95 leaves out, as of 200 batches twice as many can be
_STEP = 0.01  # a late batch raises the ratio by so much; with noise of 5 % the ratio then wanders by 1 %
_USUAL, _LEAST = 1.1, 1.01  # the ratio before it is learnt: of normal noise of 5 %; and its lower end
_NEAR = 0.5  # of the budget: emptier batches tell nothing of the slow end of full ones
_RIDGE = 0.003  # relative variance of tokens below which the slope is rather taken as in proportion: batches too alike
_STEEPEST = 2.0  # times the slope in proportion: that of a square
_HICCUP = 2.0  # times what was expected is the most that a batch teaches
_CHANGED, _IN_A_ROW = 0.2, 5  # so many batches all so far above (or below) the line: the device changed its speed
_FURTHER, _FADES = 2.0, 0.99  # times the largest batch seen, which fades: the line holds no further


@dataclass(slots=True)
class TargetBudget:
    """What batches of one model take by their computed tokens; it learns with and without a target."""

    mean: float = 0.0
    """Tokens of an input."""
    _seen: int = 0
    _line: CostLine = field(default_factory=CostLine)
    _before: CostLine = field(default_factory=CostLine)
    """The same of forwards before the first batch, for which alone it counts."""
    _ratio: float = _USUAL
    """Seconds of all but a few batches, as a multiple of those expected."""
    _largest: float = 0.0
    _last: deque[float] = field(default_factory=lambda: deque(maxlen=_IN_A_ROW))

    def learn(self, inputs: int, tokens: int, seconds: float, target: float | None) -> None:
        """A batch of so many inputs and computed tokens ran."""
        self._seen += 1
        self.mean += max(_MEAN_WEIGHT, 1 / self._seen) * (tokens / inputs - self.mean)
        if self._line.weight:
            self._compare(tokens, seconds, target)
            seconds = min(seconds, _HICCUP * self._expected(tokens))
        self._line.learn(tokens, seconds)
        self._largest = max(tokens, self._largest * _FADES) if self._seen > 1 else tokens

    def seed(self, points: Sequence[tuple[int, float]]) -> None:
        """Computed tokens and seconds of forwards before the first batch."""
        for tokens, seconds in points:
            self._before.learn(tokens, seconds)
            self._largest = max(self._largest, tokens)

    def tokens(self, target: float) -> int | None:
        """Most tokens of a batch that takes at most `target` seconds, at least 1; None while nothing is known."""
        line = self._line if self._line.weight else self._before
        if not line.weight:
            return None
        tokens = line.x + (target / self._ratio - line.y) / _slope(line)
        return max(1, int(min(tokens, _FURTHER * self._largest)))

    def _compare(self, tokens: int, seconds: float, target: float | None) -> None:
        """With what was expected: the slow end, or a device that changed."""
        ratio = seconds / self._expected(tokens)
        self._last.append(ratio)
        if self._has_changed():
            self._rescale(median(self._last))
        elif target is not None and tokens >= _NEAR * (self.tokens(target) or 0):
            late = ratio > self._ratio
            self._ratio = max(_LEAST, self._ratio + _STEP * (late - _LATE))

    def _has_changed(self) -> bool:
        surprises = [ratio - 1 for ratio in self._last]
        return len(surprises) == _IN_A_ROW and (min(surprises) > _CHANGED or max(surprises) < -_CHANGED)

    def _rescale(self, factor: float) -> None:
        """All batches take so many times longer than before."""
        self._line.y *= factor
        self._line.xy *= factor
        self._last.clear()

    def _expected(self, tokens: int) -> float:
        """Seconds of a batch; where the line falls below zero, what a square would give is near enough."""
        line = self._line
        return max(line.y + _slope(line) * (tokens - line.x), line.y * tokens / line.x / 2)


def _slope(line: CostLine) -> float:
    """Seconds per further token. Always above 0."""
    x, y = line.x, line.y
    spread, together = line.xx / x**2 - 1, line.xy / (x * y) - 1
    relative = (max(0.0, together) + _RIDGE) / (max(0.0, spread) + _RIDGE)
    return min(_STEEPEST, relative) * y / x
