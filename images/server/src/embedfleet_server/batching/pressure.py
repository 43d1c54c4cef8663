"""Memory: how full host and devices are and what follows, and how many tokens a batch may hold within a limit.

Past the warning threshold batches are formed with half their token budget, past the critical one with a quarter, and
the door refuses. A level is left only some way below the threshold at which it was entered, so that it does not flap.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from embedfleet_server.batching.cost import CostLine
from embedfleet_server.batching.types import Refusal

_RETRY_AFTER = 2.0  # seconds: by then a few batches have left, and their memory with them
_RELAX = 0.998  # what batches took beyond the line is forgotten by half over 346 further ones


class Level(IntEnum):
    """How full memory is; the higher, the fuller."""

    NORMAL = 0
    WARNING = 1
    CRITICAL = 2


_SHARE_OF_BUDGET = {Level.NORMAL: 1, Level.WARNING: 2, Level.CRITICAL: 4}
"""By how much the token budget is divided."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Shares of memory in use at which a level is entered; it is left `back` below."""

    warning: float = 0.80
    critical: float = 0.90
    back: float = 0.05


@dataclass(frozen=True, slots=True)
class Reading:
    """Memory of one place (the host, a device), in any one unit."""

    used: float
    total: float

    @property
    def share(self) -> float:
        """The part in use; 0 where the total is not known."""
        return self.used / self.total if self.total > 0 else 0.0


def level_after(before: Level, share: float, thresholds: Thresholds) -> Level:
    """Pure: the level at this share of memory in use, coming from level `before`."""
    entered = {Level.WARNING: thresholds.warning, Level.CRITICAL: thresholds.critical}
    over = [level for level, at in entered.items() if share >= at - (thresholds.back if level <= before else 0.0)]
    return max(over, default=Level.NORMAL)


@dataclass(slots=True)
class Pressure:
    """The level of each place, from one reading to the next."""

    thresholds: Thresholds = field(default_factory=Thresholds)
    level: Level = field(default=Level.NORMAL, init=False)
    """That of the fullest place: asked for with each request, so it is kept."""
    _levels: dict[str, Level] = field(default_factory=dict)
    _shares: dict[str, float] = field(default_factory=dict)

    def read(self, readings: Mapping[str, Reading]) -> Level:
        """Take in one reading of every place; a place no longer read counts no more."""
        self._shares = {place: reading.share for place, reading in readings.items()}
        self._levels = {
            place: level_after(self._levels.get(place, Level.NORMAL), share, self.thresholds)
            for place, share in self._shares.items()
        }
        self.level = max(self._levels.values(), default=Level.NORMAL)
        return self.level

    def within(self, limit: int) -> int:
        """The configured budget in tokens, cut to what the level allows."""
        return max(1, limit // _SHARE_OF_BUDGET[self.level])

    def refusal(self) -> Refusal | None:
        """What the door answers, if it refuses."""
        return Refusal(self.message(), _RETRY_AFTER) if self.level is Level.CRITICAL else None

    def message(self) -> str:
        """The fullest place, in words; the empty string at the normal level."""
        level = self.level
        if level is Level.NORMAL:
            return ""
        place = max((p for p in self._levels if self._levels[p] is level), key=lambda p: self._shares[p])
        threshold = self.thresholds.critical if level is Level.CRITICAL else self.thresholds.warning
        return f"memory of {place} is {self._shares[place]:.0%} full; {level.name.lower()} at {threshold:.0%}"


@dataclass(slots=True)
class BatchMemory:
    """What a batch takes of a device's memory by its tokens, learnt from the peaks that batches were seen to reach.

    A line through tokens and MiB, raised by what recent batches took beyond it: a batch of long texts takes more than
    one of short texts with as many tokens.
    """

    _line: CostLine = field(default_factory=CostLine)
    _excess: float = 1.0

    def learn(self, tokens: int, peak_mib: float) -> None:
        """A batch of so many computed tokens ran; at its peak it took `peak_mib` beyond what the model itself takes."""
        if tokens <= 0 or peak_mib <= 0:
            return
        self._line.learn(tokens, peak_mib)
        self._excess = max(1.0, peak_mib / self._on_line(tokens), 1.0 + (self._excess - 1.0) * _RELAX)

    @property
    def is_line(self) -> bool:
        """Whether batches of different sizes were seen, the larger of which took more."""
        return self._line.slope() is not None

    def predicted_mib(self, tokens: int) -> float | None:
        """What a batch of so many tokens would take; None before the first was seen."""
        return self._on_line(tokens) * self._excess if self._line.weight else None

    def tokens_within(self, limit_mib: float) -> int | None:
        """Most tokens of a batch predicted to stay within the limit; None before the first was seen."""
        if not self._line.weight:
            return None
        start, slope = self._start_and_slope()
        return max(0, int((limit_mib / self._excess - start) / slope))

    def _on_line(self, tokens: int) -> float:
        start, slope = self._start_and_slope()
        return start + slope * tokens

    def _start_and_slope(self) -> tuple[float, float]:
        """The line; in proportion to the tokens where sizes were too alike, or it would start below nothing."""
        slope = self._line.slope()
        if slope is None or (start := self._line.y - slope * self._line.x) < 0:
            return 0.0, self._line.y / self._line.x
        return start, slope
