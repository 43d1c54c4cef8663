"""One line per event on stderr, tracebacks included, so that a log collector never tears one apart."""

import json
import logging
import sys
import time


class OneLine(logging.Formatter):
    """`2026-01-31T12:00:00.000Z LEVEL logger message`, and `traceback="…"` as one JSON string."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        when = f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}Z"
        message = record.getMessage().replace("\r", "\\r").replace("\n", "\\n")
        line = f"{when} {record.levelname} {record.name} {message}"
        if record.exc_info:
            line += f" traceback={json.dumps(self.formatException(record.exc_info))}"
        return line


class Sparing:
    """At most `lines` in any second that begins with a line; counts those that are left out. Pure."""

    def __init__(self, lines: int) -> None:
        self._lines = lines
        self._began = float("-inf")
        self._written = self._left_out = 0

    def ask(self, now: float) -> int | None:
        """Whether to write a line now (seconds): how many were left out before it; None to leave it out too."""
        if now - self._began >= 1:
            self._began, self._written = now, 0
        if self._written >= self._lines:
            self._left_out += 1
            return None
        self._written += 1
        left_out, self._left_out = self._left_out, 0
        return left_out


def configure(level: int) -> None:
    """All loggers of the process write to stderr, our own from `level` on, libraries from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("embedfleet", "embedfleet_server"):
        logging.getLogger(name).setLevel(level)
