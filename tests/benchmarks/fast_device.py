"""`python -m tests.benchmarks.fast_device`: how much of a fast device's speed the server keeps busy.

A device whose batches take milliseconds, as a GPU's do, waits for the server between two of them: what the event loop,
forming a batch and the way to the device's thread take is lost, unless the next batch is ready when one ends.
"""

import argparse
from statistics import median

from tests.benchmarks import loads, paced
from tests.benchmarks.child import Child
from tests.benchmarks.report import Goal, Section, rate, show

TEXTS, REPETITIONS = 6400, 3
_SECONDS = (0.02, 0.01)
_PATTERNS = (loads.Pattern(4, 64), loads.Pattern(8, 32), loads.Pattern(64, 8))
_BATCH = 32  # `maxBatchSize` where sizing is Fixed
_BUSY = 0.95  # of issue 9: idle for less than 5 %


def measure(texts: int = TEXTS, repetitions: int = REPETITIONS) -> Section:
    """Texts a second of each pattern in turn, on each device; no two texts are alike, so that none joins another."""
    section = Section(
        f"A fast device: {texts:,} texts of two words, batches of {_BATCH}",
        ("a batch takes", "load", "texts/s (range)", "of the device"),
    )
    words = [f"text {number}" for number in range(texts)]
    shares = []
    for seconds in _SECONDS:
        for pattern, taken in _measured(seconds, words, repetitions).items():
            shares.append(texts / median(taken) / (_BATCH / seconds))
            section.rows.append((f"{seconds * 1000:.0f} ms", str(pattern), rate(texts, taken), f"{shares[-1]:.0%}"))
    goal = f"a device whose batches take {_SECONDS[-1] * 1000:.0f} ms is busy for {_BUSY:.0%} of the time, or more"
    section.goals.append(Goal(goal, f"{min(shares):.1%} to {max(shares):.1%}", min(shares) >= _BUSY))
    section.notes.append("The device is a thread that sleeps; server and clients share the cores that are left.")
    return section


def _measured(seconds: float, texts: list[str], repetitions: int) -> dict[loads.Pattern, list[float]]:
    """Seconds that each pattern took, each time."""
    taken: dict[loads.Pattern, list[float]] = {}
    with paced.running(seconds) as server, Child("tests.benchmarks.clients") as clients:
        for _ in range(repetitions):
            for one in _PATTERNS:
                asked = {"clients": one.clients, "size": one.texts, "wanted": "npy"}
                made = clients.ask("pattern", url=server.url, model="semantic", texts=texts, **asked)
                taken.setdefault(one, []).append(float(made["seconds"]))
    return taken


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--texts", type=int, default=TEXTS, help="%(default)s")
    options.add_argument("--repetitions", type=int, default=REPETITIONS, help="%(default)s")
    given = options.parse_args()
    show(measure(given.texts, given.repetitions))
