"""Hostile texts at a real server with a real model: how long a probe waits meanwhile, and a good request of others.

The server is a process of its own, as are those who send; this one asks the observation port and times the answers.
"""

import http.client
import itertools
import json
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
_PATIENCE = 120.0  # seconds for one answer; more than a request may wait by default


def measure(say: Callable[[str], None]) -> Section:
    """Probes and good requests without load, then under hostile texts of a million characters."""
    with ours.running() as server, Child("tests.benchmarks.hostile_senders") as senders:
        quiet = _probed(server.record, _QUIET_SECONDS)
        alone = _good(server.record, _QUIET_SECONDS)
        asked: dict[str, Any] = {}
        good: list[float] = []
        load = threading.Thread(target=lambda: asked.update(senders.ask("send_all", url=server.url, seconds=_SECONDS)))
        other = threading.Thread(target=lambda: good.extend(_good(server.record, _SECONDS)))
        load.start()
        other.start()
        waits = _probed(server.record, _SECONDS)
        other.join()
        load.join()
    return _section(quiet, waits, alone, good, asked["statuses"], say)


def _probed(record: LocalRecord, seconds: float) -> list[float]:
    """Seconds for each answer of `/live`, asked at fixed times on a connection of its own, late or not."""
    address, found, began = urlsplit(record.observe_url), list[float](), time.perf_counter()
    for due in itertools.takewhile(lambda at: at < seconds, itertools.count(0.0, _EVERY)):
        time.sleep(max(0.0, began + due - time.perf_counter()))
        found.append(_asked(address.netloc, "GET", "/live"))
    return found


def _good(record: LocalRecord, seconds: float) -> list[float]:
    """Seconds for each answer to a request of two short texts, one after the other.

    Two, since the tokenizer computes several texts of a call in a pool that all its callers share.
    """
    address, found, until = urlsplit(record.url), list[float](), time.perf_counter() + seconds
    body = json.dumps({"input": ["a short text", "and one more"]})
    while time.perf_counter() < until:
        found.append(_asked(address.netloc, "POST", "/v1/embeddings", body))
    return found


def _asked(address: str, method: str, path: str, body: str | None = None) -> float:
    """Seconds from a connection of its own to the last byte of the answer."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection(address, timeout=_PATIENCE)
    connection.request(method, path, body)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    if answer.status != 200:
        raise AssertionError(f"{path} answered {answer.status}")
    return time.perf_counter() - began


def _section(
    quiet: list[float],
    waits: list[float],
    alone: list[float],
    good: list[float],
    statuses: dict[str, int],
    say: Callable[[str], None],
) -> Section:
    worst = float(np.quantile(waits, 0.99))
    say(f"hostile: a probe waits {milliseconds(worst)} at p99, a good request {_spread(good)} (p50, p99, most)")
    section = Section(
        f"Hostile texts: {len(hostile_texts(1))} kinds of {LONGEST:,} characters, {SENDERS} senders, {_SECONDS:.0f} s",
        ("what", "value"),
    )
    section.rows += [
        ("probes without load, p50, p99, most", _spread(quiet)),
        ("probes under hostile texts, p50, p99, most", _spread(waits)),
        ("good requests of two short texts without load, p50, p99, most", _spread(alone)),
        ("good requests under hostile texts, p50, p99, most", _spread(good)),
        ("good requests answered meanwhile", f"{len(good):,}"),
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
