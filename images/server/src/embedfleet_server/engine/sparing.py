"""How often the same thing is said in a log."""

from typing import Final

LINES_A_SECOND: Final = 10
"""Of failed requests, or batches: enough to see what fails, too few to bury the rest of the log."""


class Sparing:
    """At most `lines` in any second that begins with a line; counts those that are left out. Pure."""

    def __init__(self, lines: int = LINES_A_SECOND) -> None:
        self._lines = lines
        self._began = float("-inf")
        self._written = self._left_out = 0

    def ask(self, now: float) -> str | None:
        """Whether to write a line now (seconds): its end, which says what was left out before it; None to leave it out.

        The end is empty where nothing was left out.
        """
        if now - self._began >= 1:
            self._began, self._written = now, 0
        if self._written >= self._lines:
            self._left_out += 1
            return None
        self._written += 1
        left_out, self._left_out = self._left_out, 0
        return f" left_out={left_out}" if left_out else ""
