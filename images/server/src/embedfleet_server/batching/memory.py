"""The token budget after out-of-memory: halved at once, grown back slowly."""

from dataclasses import dataclass

_GROW = 1.05  # a budget cut in half is back after 15 quiet spells
_QUIET = 20  # batches without a failure before each step up


@dataclass(slots=True)
class MemoryBudget:
    """Most tokens in a batch, as far as the device's memory was seen to allow; `None` is no limit seen."""

    tokens: int | None = None
    quiet: int = 0

    def ran_out(self, tokens: int) -> None:
        """A batch of so many tokens did not fit."""
        half = max(1, tokens // 2)
        self.tokens = half if self.tokens is None else min(self.tokens, half)
        self.quiet = 0

    def went_well(self, limit: int) -> None:
        """A batch did fit; `limit` is the configured budget, at which there is nothing left to remember."""
        if self.tokens is None:
            return
        self.quiet += 1
        if self.quiet >= _QUIET:
            self.quiet = 0
            self.tokens = int(self.tokens * _GROW) + 1
            if self.tokens >= limit:
                self.tokens = None

    def within(self, limit: int) -> int:
        """The configured budget, cut to what memory allows."""
        return limit if self.tokens is None else min(limit, self.tokens)
