"""The log: a line per event, whatever is logged."""

import json
import logging
import sys

from embedfleet_server.app.logs import OneLine, Seldom
from embedfleet_server.engine.sparing import Sparing


def test_tracebacks_and_line_ends_stay_on_one_line() -> None:
    """A message with line ends and a traceback make one line, the traceback readable as JSON."""
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        record = logging.LogRecord("embedfleet", logging.ERROR, __file__, 1, "a\nb %s", ("c\rd",), sys.exc_info())
    line = OneLine().format(record)
    assert "\n" not in line
    assert "\r" not in line
    assert "ERROR embedfleet a\\nb c\\rd traceback=" in line
    assert "ValueError: first\nsecond" in json.loads(line.partition("traceback=")[2])


def test_lines_are_spared_and_counted() -> None:
    """Two lines in a second, the third is left out; the first of the next second says how many were."""
    sparing = Sparing(2)
    assert [sparing.ask(now) for now in (0.0, 0.1, 0.2, 0.9)] == ["", "", None, None]
    assert [sparing.ask(now) for now in (1.0, 1.5, 1.9)] == [" left_out=2", "", None]
    assert sparing.ask(60.0) == " left_out=1"


def test_libraries_that_repeat_themselves_are_heard_once_a_minute() -> None:
    """Each of OpenTelemetry's loggers writes a line a minute while a collector is away; ours write all."""
    now = 0.0
    seldom = Seldom(lambda: now)

    def written(name: str) -> bool:
        return seldom.filter(logging.LogRecord(name, logging.WARNING, "", 0, "away", None, None))

    assert [written("opentelemetry.exporter.otlp") for _ in range(3)] == [True, False, False]
    assert written("opentelemetry.sdk")
    assert [written("embedfleet.engine") for _ in range(3)] == [True] * 3
    now = 60.0
    assert written("opentelemetry.exporter.otlp")
