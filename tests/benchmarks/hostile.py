"""Hostile texts at a real server with a real model: how long a probe waits meanwhile, and a good request of others.

The server is a process of its own, as are those who send; this one asks the observation port and times the answers.
"""

import http.client
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from embedfleet.api.local import LocalRecord
from tests.benchmarks import ours
from tests.benchmarks.child import Child
from tests.benchmarks.hostile_senders import SENDERS
from tests.benchmarks.report import Goal, Section, milliseconds, show
from tests.support.hostile_texts import LONGEST, hostile_texts

_MOST = 0.1  # seconds at p99: the goal of issue 5
_SECONDS, _QUIET_SECONDS = 30.0, 5.0
_EVERY = 0.01  # seconds between probes: a thousand and more of them, so that a p99 means something


def measure(say: Callable[[str], None]) -> Section:
    """Probes without load, then under hostile texts of a million characters."""
    with ours.running() as server, Child("tests.benchmarks.hostile_senders") as senders:
        quiet = _probed(server.record, _QUIET_SECONDS)
        asked: dict[str, Any] = {}
        load = threading.Thread(target=lambda: asked.update(senders.ask("send_all", url=server.url, seconds=_SECONDS)))
        load.start()
        waits = _probed(server.record, _SECONDS)
        load.join()
    return _section(quiet, waits, asked["statuses"], say)


def _probed(record: LocalRecord, seconds: float) -> list[float]:
    """Seconds for each answer of `/live`, asked at fixed times on a connection of its own, late or not."""
    address, found, began = urlsplit(record.observe_url), list[float](), time.perf_counter()
    for due in itertools.takewhile(lambda at: at < seconds, itertools.count(0.0, _EVERY)):
        time.sleep(max(0.0, began + due - time.perf_counter()))
        asked = time.perf_counter()
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
        connection.request("GET", "/live")
        answer = connection.getresponse()
        answer.read()
        connection.close()
        if answer.status != 200:
            raise AssertionError(f"/live answered {answer.status}")
        found.append(time.perf_counter() - asked)
    return found


def _section(quiet: list[float], waits: list[float], statuses: dict[str, int], say: Callable[[str], None]) -> Section:
    worst = float(np.quantile(waits, 0.99))
    say(f"hostile: a probe waits {milliseconds(worst)} at p99")
    section = Section(
        f"Hostile texts: {len(hostile_texts(1))} kinds of {LONGEST:,} characters, {SENDERS} senders, {_SECONDS:.0f} s",
        ("what", "value"),
    )
    section.rows += [
        ("probes without load, p50, p99, most", _spread(quiet)),
        ("probes under hostile texts, p50, p99, most", _spread(waits)),
        ("probes answered meanwhile", f"{len(waits):,}, each 200"),
        ("hostile requests by status", ", ".join(f"{count} × {status}" for status, count in sorted(statuses.items()))),
    ]
    section.goals.append(
        Goal(f"hostile texts leave health at p99 < {_MOST * 1000:.0f} ms", milliseconds(worst), worst < _MOST)
    )
    return section


def _spread(waits: Sequence[float]) -> str:
    return ", ".join(milliseconds(float(np.quantile(waits, q))) for q in (0.5, 0.99, 1.0))


def main() -> None:
    """This part by itself."""
    show(measure(print))


if __name__ == "__main__":
    main()
