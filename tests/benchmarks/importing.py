"""What `import embedfleet` costs, and what it must not bring along."""

import json
import subprocess
import sys
from statistics import median
from typing import Any

from tests.benchmarks.report import Goal, Section, milliseconds

_TRIES = 7
_HEAVY = ("torch", "kubernetes", "pandas")
_LIMIT = 0.3
_PROGRAM = """
import json, sys, time
started = time.perf_counter()
{statement}
seconds = time.perf_counter() - started
print(json.dumps({{"seconds": seconds, "heavy": [name for name in {heavy!r} if name in sys.modules]}}))
"""
_STATEMENTS = ("import embedfleet", "from embedfleet import connect", "import embedfleet.api")


def measure() -> Section:
    """Fresh interpreters, files warm in the system's cache."""
    section = Section("Importing the SDK", ("statement", "median", "slowest"))
    for statement in _STATEMENTS:
        tries = [_try(statement) for _ in range(_TRIES)]
        taken = [one["seconds"] for one in tries]
        section.rows.append((f"`{statement}`", milliseconds(median(taken)), milliseconds(max(taken))))
        if statement == _STATEMENTS[0]:
            section.goals.append(_goal(median(taken), tries[0]["heavy"]))
    return section


def _try(statement: str) -> dict[str, Any]:
    program = _PROGRAM.format(statement=statement, heavy=_HEAVY)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _goal(seconds: float, heavy: list[str]) -> Goal:
    without = "without " + ", ".join(_HEAVY)
    measured = f"{milliseconds(seconds)}, {'with ' + ', '.join(heavy) if heavy else without}"
    return Goal(f"`import embedfleet` under {_LIMIT} s, {without}", measured, seconds < _LIMIT and not heavy)
