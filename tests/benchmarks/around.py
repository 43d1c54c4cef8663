"""The server's processor time outside the forward at saturation, and what an answer's form costs (N3)."""

from collections import defaultdict
from statistics import median

from tests.benchmarks import loads, ours
from tests.benchmarks.bench import Bench
from tests.benchmarks.report import Goal, Section, rate

_PATTERNS = (loads.Pattern(64, 1), loads.Pattern(8, 32), loads.Pattern(4, 64))
_OUTSIDE, _JSON = 0.15, 0.7
_INSIDE = "device"
"""Threads whose names begin so compute; those of all others receive, tokenise, schedule and answer."""


def measure(bench: Bench) -> Section:
    """Processor seconds by thread while the mixed load is sent as fast as it is taken."""
    section = Section(
        f"Around the forward: {len(bench.texts)} mixed texts at saturation, float32",
        ("load", "texts/s", "processor time outside / inside", "by thread, ms a text"),
    )
    ratios = [_saturated(bench, section, pattern) for pattern in _PATTERNS]
    worst, best = max(ratios), min(ratios)
    goal = "server's processor time outside the forward <= 15 % of that inside, at saturation"
    section.goals.append(Goal(goal, f"{best:.1%} to {worst:.1%} over the client patterns", best <= _OUTSIDE))
    section.goals.append(_json(bench))
    section.notes.append(
        "Inside: the device's thread and torch's workers, which bear its name; what they spin while they wait counts "
        "too. Outside: every other thread of the server. The load generator is another process."
    )
    return section


def _saturated(bench: Bench, section: Section, pattern: loads.Pattern) -> float:
    seconds, spent = list[float](), defaultdict[str, float](float)
    for _ in range(bench.repetitions):
        before = bench.server.processor_seconds_by_thread()
        seconds.append(_taken(bench, pattern, "float"))
        for name, now in bench.server.processor_seconds_by_thread().items():
            spent[name] += now - before.get(name, 0.0)
    inside = sum(value for name, value in spent.items() if name.startswith(_INSIDE))
    outside = sum(spent.values()) - inside
    texts = len(bench.texts) * bench.repetitions
    told = ", ".join(f"{name} {value / texts * 1000:.2f}" for name, value in sorted(spent.items()) if value)
    section.rows.append((str(pattern), rate(len(bench.texts), seconds), f"{outside / inside:.1%}", told))
    bench.say(f"around, {pattern}: outside {outside / inside:.1%} of inside")
    return outside / inside


def _json(bench: Bench) -> Goal:
    """JSON floats against the array itself, 64 texts a request, alternating."""
    pattern = loads.Pattern(4, 64)
    pairs = [(_taken(bench, pattern, "npy"), _taken(bench, pattern, "float")) for _ in range(bench.repetitions)]
    ratio = median(npy / floats for npy, floats in pairs)
    return Goal(f"JSON floats >= {_JSON} x the rate of npy at 64 texts a request", f"{ratio:.2f} x", ratio >= _JSON)


def _taken(bench: Bench, pattern: loads.Pattern, wanted: loads.Format) -> float:
    asked = {"clients": pattern.clients, "size": pattern.texts, "wanted": wanted, "texts": bench.texts}
    return float(bench.clients.ask("pattern", url=bench.server.url, model=ours.MODEL, **asked)["seconds"])
