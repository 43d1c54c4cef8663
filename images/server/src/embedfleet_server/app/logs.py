"""One line per event on stderr, tracebacks included, so that a log collector never tears one apart."""

import json
import logging
import sys
import time
from collections.abc import Callable

from embedfleet_server.app.log_queue import LogQueue
from embedfleet_server.engine.sparing import Sparing

_REPETITIVE = ("opentelemetry", "urllib3")
_MINUTE = 60.0


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


class Seldom(logging.Filter):
    """Of each logger of libraries that repeat themselves while something is away, at most one line a minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` in seconds."""
        super().__init__()
        self._clock = clock
        self._sparing: dict[str, Sparing] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        if not record.name.startswith(_REPETITIVE):
            return True
        sparing = self._sparing.setdefault(record.name, Sparing(1))
        return sparing.ask(self._clock() / _MINUTE) is not None


def configure(level: int) -> None:
    """All loggers of the process write to stderr, our own from `level` on, libraries from WARNING on.

    Nobody who logs waits for stderr (see `log_queue`).
    """
    handler = LogQueue(sys.stderr.fileno())
    handler.setFormatter(OneLine())
    handler.addFilter(Seldom())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("embedfleet", "embedfleet_server"):
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(capture=True)  # else Python itself writes them to stderr, and waits for it


def flush() -> None:
    """What was logged is written, or as much of it as goes in a moment: for who leaves without Python's own end."""
    for handler in logging.getLogger().handlers:
        handler.flush()
