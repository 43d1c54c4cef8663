"""One line per event on stderr, tracebacks included, so that a log collector never tears one apart."""

import json
import logging
import sys
import time

from embedfleet_server.app.log_queue import LogQueue


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


def configure(level: int) -> None:
    """All loggers of the process write to stderr, our own from `level` on, libraries from WARNING on.

    Nobody who logs waits for stderr (see `log_queue`).
    """
    handler = LogQueue(sys.stderr.fileno())
    handler.setFormatter(OneLine())
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
