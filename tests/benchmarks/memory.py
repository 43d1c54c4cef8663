"""Whether the server's memory grows with what it has served."""

from tests.benchmarks import ours
from tests.benchmarks.bench import Bench
from tests.benchmarks.report import Goal, Section

_WARM_UP = 20_000
_TEXTS = 50_000
_STEPS = 5
_CLIENTS, _SIZE = 8, 50
_LIMIT = 50 * 2**20


def measure(bench: Bench) -> Section:
    """Resident size over 50,000 short texts, after the mixed load and 20,000 of the same, which teach it its sizes."""
    bench.say(f"memory over {_TEXTS} texts")
    server = bench.server
    asked = {"url": server.url, "model": ours.MODEL, "clients": _CLIENTS, "size": _SIZE}
    bench.clients.ask("pattern", texts=bench.texts[:500], wanted="float", **asked)
    bench.clients.ask("shorts", count=_WARM_UP, **asked)
    section = Section("Memory of the server", ("after", "resident", "growth"))
    start = server.resident()
    section.rows.append(("warm-up", _mebibytes(start), "-"))
    for step in range(1, _STEPS + 1):
        bench.clients.ask("shorts", count=_TEXTS // _STEPS, **asked)
        now = server.resident()
        section.rows.append((f"{step * _TEXTS // _STEPS:,} texts", _mebibytes(now), _mebibytes(now - start)))
        bench.say(f"  {section.rows[-1]}")
    section.goals.append(
        Goal(f"server grows < 50 MiB over {_TEXTS:,} texts", _mebibytes(now - start), now - start < _LIMIT)
    )
    return section


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
