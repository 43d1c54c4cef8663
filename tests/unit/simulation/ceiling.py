"""A bound of a world, which settings may lower while more is there."""

import math
from dataclasses import dataclass


@dataclass(slots=True)
class Ceiling:
    """A bound that may be lowered while more than it is there: what is there may then only shrink towards it."""

    allowed: float = math.inf

    def passed(self, value: float, bound: float | None) -> bool:
        """Whether `value` is over what is allowed under `bound`."""
        if value > self.allowed:
            return True
        self.lower(value, bound)
        return False

    def lower(self, value: float, bound: float | None) -> None:
        """A new bound, at a moment at which `value` is there."""
        self.allowed = max(math.inf if bound is None else bound, value)
