"""Three times what a server can compute, over HTTP: the real process, a model of fixed speed, callers elsewhere."""

import json
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from embedfleet.api.local import LocalRecord
from tests.benchmarks import paced
from tests.benchmarks.child import Child
from tests.benchmarks.paced import FORWARD_SECONDS
from tests.benchmarks.report import Goal, Section, milliseconds

_FACTOR = 3.0
_CLIENTS, _PEAK_SECONDS = 256, 3.0
_WARM_UP, _SECONDS = 3.0, 9.0  # the queue of 1000 is full after 2
_GOODPUT, _VAIN, _LATE, _REFUSED = 0.9, 0.01, 0.01, 0.010


@dataclass(frozen=True, slots=True)
class _Call:
    sent: float
    end: str
    seconds: float
    told: float


def measure(say: Callable[[str], None]) -> Section:
    """Peak by a closed loop, then three times as much by an open one."""
    with paced.running() as server, Child("tests.benchmarks.arriving") as callers:
        asked = {"url": server.url, "model": "semantic"}
        peak = callers.ask("closed", clients=_CLIENTS, seconds=_PEAK_SECONDS, **asked)["rate"]
        before = _computed(server)
        say(f"overload over HTTP: {peak:.0f} texts/s at most")
        found = callers.ask("arrive", rate=_FACTOR * peak, seconds=_SECONDS, **asked)
        computed = _computed(server) - before
    calls = [_Call(*call) for call in found["calls"]]
    return _section(peak, calls, computed, found["late"])


def _computed(server: LocalRecord) -> int:
    """Inputs computed since the start."""
    with urllib.request.urlopen(f"{server.observe_url}/state", timeout=10) as answer:
        sizes: dict[str, int] = json.load(answer)["batches"]["sizes"]
    return sum(int(size) * count for size, count in sizes.items())


def _section(peak: float, calls: list[_Call], computed: int, late: list[float]) -> Section:
    answered = [call for call in calls if call.end == "200"]
    goodput = sum(_WARM_UP < call.sent + call.seconds <= _SECONDS for call in answered) / (_SECONDS - _WARM_UP)
    vain = 1 - len(answered) / computed
    steady = [call for call in calls if call.sent > _WARM_UP]
    waits = [call for call in steady if call.end == "200"]
    late_ones = sum(call.end == "504" for call in steady) / max(1, len(waits))
    refused = float(np.quantile([call.seconds for call in steady if call.end == "429"], 0.99))
    section = Section(
        f"Overload over HTTP: {_FACTOR:.0f} x capacity for {_SECONDS:.0f} s, a forward takes {FORWARD_SECONDS} s",
        ("what", "value"),
    )
    ends = Counter(call.end for call in calls)
    section.rows += [
        ("peak, closed loop", f"{peak:.0f} texts/s"),
        ("offered", f"{len(calls) / _SECONDS:.0f} requests/s of one text"),
        (
            "answers (200: a vector, 429: refused, 504: late, left: hung up)",
            ", ".join(f"{n:,} {e}" for e, n in sorted(ends.items())),
        ),
        ("goodput", f"{goodput:.0f} texts/s"),
        (
            "wait of the accepted, p50 and p99",
            ", ".join(f"{np.quantile([c.seconds for c in waits], q):.2f} s" for q in (0.5, 0.99)),
        ),
        ("Retry-After told meanwhile, p50", f"{np.median([call.told for call in waits]):.2f} s"),
        ("accepted though its stated deadline passed", f"{late_ones:.2%} of those answered"),
        (
            "refusals, p50 and p99",
            ", ".join(
                milliseconds(float(np.quantile([c.seconds for c in steady if c.end == "429"], q))) for q in (0.5, 0.99)
            ),
        ),
        ("computed, and not answered", f"{computed:,} texts, {vain:.2%}"),
        (
            "sent later than planned, p99 and most (the machine's or the generator's doing)",
            ", ".join(milliseconds(float(np.quantile(late, q))) for q in (0.99, 1.0)),
        ),
    ]
    name = "overload over HTTP"
    section.goals += [
        Goal(f"{name}: goodput >= {_GOODPUT:.0%} of peak", f"{goodput / peak:.0%}", goodput >= _GOODPUT * peak),
        Goal(f"{name}: refusals answered in <= 10 ms at p99", milliseconds(refused), refused <= _REFUSED),
        Goal(f"{name}: accepted, then too late <= {_LATE:.0%}", f"{late_ones:.2%}", late_ones <= _LATE),
        Goal(f"{name}: texts computed for callers gone < {_VAIN:.0%}", f"{vain:.2%}", vain < _VAIN),
    ]
    return section
