"""How long a request takes beside 0, 15 and 127 others: one text, and 64 texts; here and at the peer."""

from collections import defaultdict
from statistics import median
from typing import Any

from tests.benchmarks import ours
from tests.benchmarks.bench import Bench
from tests.benchmarks.peers import infinity
from tests.benchmarks.report import Section, milliseconds

_CLIENTS = (1, 16, 128)
_SINGLES = {1: 60, 16: 400, 128: 768}
"""Requests of one text: enough that the hundredth part of them is some, few enough that the peer is done in time."""
_BATCHES = {1: 6, 16: 16, 128: 128}
"""Requests of 64 texts."""
_TURNS = {1: 2, 16: 2, 128: 1}
"""The peer takes minutes over 128 requests of 64 texts."""
_QUEUED, _PATIENCE = 20_000, 600
"""Texts that may wait, and seconds they may: 128 times 64 texts are more than are taken by default."""


def measure(bench: Bench) -> Section:
    """Seconds from a request's first byte sent to its answer's last, in closed loops."""
    section = Section(
        "Latency under load: closed loops over the mixed load, float32",
        ("subject", "clients", "one text p50", "p95", "p99", "64 texts p50"),
    )
    for clients in _CLIENTS:
        with bench.server.overridden(maxQueuedRequests=_QUEUED, itemTimeoutSeconds=_PATIENCE):
            found = _turns(bench, clients)
        for name, of in found.items():
            single = (milliseconds(median(one[key] for one in of["single"])) for key in ("p50", "p95", "p99"))
            whole = milliseconds(median(one["p50"] for one in of["whole"]))
            section.rows.append((name, str(clients), *single, whole))
            bench.say(f"latency, {clients} clients: {section.rows[-1]}")
    section.notes.append(
        "Closed loops: each client sends its next request when it has its answer; medians of two turns (128: one)."
    )
    return section


def _turns(bench: Bench, clients: int) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """What each subject measured, one after the other in turn, so that noise hits all."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for _ in range(_TURNS[clients]):
        for name, url, model in _subjects(bench):
            for kind, size, count in (("single", 1, _SINGLES[clients]), ("whole", 64, _BATCHES[clients] * 64)):
                texts = [f"{place} {bench.texts[place % len(bench.texts)]}" for place in range(count)]  # none twice
                asked = {"clients": min(clients, count // size), "size": size, "wanted": "float", "texts": texts}
                found[name][kind].append(bench.clients.ask("pattern", url=url, model=model, **asked))
    return found


def _subjects(bench: Bench) -> list[tuple[str, str, str]]:
    subjects = [("embedfleet", bench.server.url, ours.MODEL)]
    if bench.peer is not None:
        subjects.append((f"infinity {infinity.VERSION}", bench.peer.url, infinity.MODEL))
    return subjects
