"""What a forward costs, learnt from the batches that ran: seconds = start + slope x tokens.

A straight line fitted by least squares with exponential forgetting: old batches count less and less, so that the line
follows a device that slows down. Serves the delay told to refused callers, and how much padding is worth a forward.
"""

from dataclasses import dataclass

_FORGET = 0.98  # a batch counts half after 34 further ones
_UNKNOWN_START_TOKENS = 256.0  # before two sizes were seen: about what a small model's forward costs on a CPU


@dataclass(slots=True)
class CostLine:
    """The fitted line of one model on one device."""

    weight: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0
    own: float = 0.0
    """Mean tokens of a batch's inputs themselves, padding left out."""

    def learn(self, tokens: int, seconds: float, own: int | None = None) -> None:
        """Take in one batch of `tokens` that took `seconds`; `own` of them are no padding (unset: all)."""
        self.weight = self.weight * _FORGET + 1.0
        rate = 1.0 / self.weight
        self.x += (tokens - self.x) * rate
        self.own += ((tokens if own is None else own) - self.own) * rate
        self.y += (seconds - self.y) * rate
        self.xx += (tokens * tokens - self.xx) * rate
        self.xy += (tokens * seconds - self.xy) * rate

    def slope(self) -> float | None:
        """Seconds per further token; None until batches of different sizes were seen."""
        spread = self.xx - self.x * self.x
        if spread <= 1e-9 * max(self.xx, 1.0):
            return None
        slope = (self.xy - self.x * self.y) / spread
        return slope if slope > 0 else None

    def seconds(self, tokens: int) -> float:
        """What a batch of so many tokens takes; 0 before the first was seen."""
        slope = self.slope()
        if slope is None:
            return self.y * tokens / self.x if self.x else 0.0
        return max(0.0, self.y + slope * (tokens - self.x))

    def tokens_per_second(self) -> float | None:
        """Speed over the recent batches, their starts included and padding left out, as what waits is counted."""
        return self.own / self.y if self.y > 0 else None

    def start_tokens(self) -> float:
        """How many tokens could be computed in the time it takes to start a forward."""
        slope = self.slope()
        if slope is None:
            return _UNKNOWN_START_TOKENS
        return max(0.0, self.y / slope - self.x)
