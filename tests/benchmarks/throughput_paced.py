"""`python -m tests.benchmarks.throughput_paced`: the SDK against raw patterns, on a device of known speed.

What the real model gives in one repetition varies by more than what is looked for here, and the best of several
patterns is the luckiest. Here every batch takes the same time (`paced`), so that what is missing to the device's own
speed was lost on the way to it: by gaps between requests, by batches that are not full, at the beginning and the end.
"""

import argparse
from collections.abc import Callable
from functools import partial
from statistics import median

from tests.benchmarks import loads, paced
from tests.benchmarks.child import Child
from tests.benchmarks.report import Goal, Section, rate, show

TEXTS, REPETITIONS = 1920, 3
_MODEL = "semantic"
_SDK = "SDK: one `embed` of all texts"
_SHARE = 0.9  # of issue 8
Subjects = dict[str, Callable[[], float]]


def measure(texts: int = TEXTS, repetitions: int = REPETITIONS) -> Section:
    """Texts a second of each, in turn; every other repetition goes backwards."""
    taken: dict[str, list[float]] = {}
    with paced.running() as server, Child("tests.benchmarks.clients") as clients:
        subjects = _subjects(clients, server.url, list(loads.short(texts)))
        for repetition in range(repetitions):
            for name in subjects if repetition % 2 == 0 else reversed(subjects):
                taken.setdefault(name, []).append(subjects[name]())
    return _section(texts, taken)


def _subjects(clients: Child, url: str, texts: list[str]) -> Subjects:
    """What to run, by name; each gives the seconds it took."""

    def seconds(do: str, **more: object) -> float:
        return float(clients.ask(do, url=url, model=_MODEL, texts=texts, **more)["seconds"])

    patterns: Subjects = {
        str(one): partial(seconds, "pattern", clients=one.clients, size=one.texts, wanted="npy")
        for one in loads.PATTERNS
    }
    return {**patterns, _SDK: partial(seconds, "sdk")}


def _section(texts: int, taken: dict[str, list[float]]) -> Section:
    title = f"The SDK on a device of known speed: {texts:,} short texts, a batch of 32 takes {paced.FORWARD_SECONDS} s"
    section = Section(title, ("client", "texts/s (range)", "of the device"))
    device = 32 / paced.FORWARD_SECONDS  # `maxBatchSize` where sizing is Fixed
    for name, seconds in taken.items():
        section.rows.append((name, rate(texts, seconds), f"{texts / median(seconds) / device:.0%}"))
    best = min((name for name in taken if name != _SDK), key=lambda name: median(taken[name]))
    share = median(taken[best]) / median(taken[_SDK])
    wanted = f"SDK >= {_SHARE:.0%} of what the server gives its best load generator"
    section.goals.append(Goal(wanted, f"{share:.0%} ({best})", share >= _SHARE))
    return section


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--texts", type=int, default=TEXTS, help="%(default)s")
    options.add_argument("--repetitions", type=int, default=REPETITIONS, help="%(default)s")
    given = options.parse_args()
    show(measure(given.texts, given.repetitions))
