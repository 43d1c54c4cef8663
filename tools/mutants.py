"""`make mutants`: do the tests of the batching core notice when it is wrong? Faults are put in one by one.

For each mutant (`mutating`) the tests that run the mutated lines are run, the quickest first, then the simulated
worlds, then the engine's tests, until one fails: then it is killed. A test that takes far longer than it should kills,
too. What survives shows a test that is missing, or code that decides nothing. Each mutant lives in a process of its
own, forked from one in which the heavy libraries are loaded; no file is written but the map of what runs which line.
"""

import argparse
import os
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from tools.mutant_tests import CORE, FAILED, MODULES, SLOW, Survey, judge, survey
from tools.mutating import Mutant, mutants_of

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "mutants.md"
WANTED = 0.90


def all_mutants() -> list[Mutant]:
    """Those of every file of the core."""
    return [mutant for name in MODULES for mutant in mutants_of((CORE / f"{name}.py").read_text("utf-8"), name)]


def sample(mutants: Sequence[Mutant], count: int, seed: int) -> list[Mutant]:
    """So many of them, from each file in proportion to what there is; the same with the same seed."""
    rng, by_file = random.Random(seed), defaultdict(list)  # noqa: S311  # no secret
    for mutant in mutants:
        by_file[mutant.file].append(mutant)
    chosen: list[Mutant] = []
    for own in by_file.values():
        chosen += rng.sample(own, min(len(own), round(count * len(own) / len(mutants))))
    return sorted(chosen, key=lambda mutant: (mutant.file, mutant.number))


def table(judged: Sequence[tuple[Mutant, str]]) -> list[str]:
    """Killed and surviving ones by file, in Markdown."""
    made, killed = Counter(m.file for m, _ in judged), Counter(m.file for m, how in judged if how)
    late = Counter(m.file for m, how in judged if how == SLOW)
    rows = [(name, made[name], killed[name], late[name]) for name in sorted(made)]
    rows.append(("**all**", len(judged), sum(killed.values()), sum(late.values())))
    lines = ["| file | mutants | killed | of these by time | rate |", "|---|---:|---:|---:|---:|"]
    return lines + [f"| {name} | {of} | {dead} | {slow} | {dead / of:.1%} |" for name, of, dead, slow in rows]


def run(mutants: Sequence[Mutant], map_: Survey, seconds: float) -> list[tuple[Mutant, str]]:
    """Each mutant and how it was killed; the empty string where it survived. Stops when the time is over."""
    judged: list[tuple[Mutant, str]] = []
    until = time.monotonic() + seconds
    for number, mutant in enumerate(mutants, 1):
        if time.monotonic() > until:
            print(f"time is over: {len(mutants) - number + 1} mutants were not run", flush=True)
            break
        how = judge(mutant, map_)
        judged.append((mutant, how))
        if not how:
            print(f"{number}/{len(mutants)} survives: {mutant.first}: {mutant.name}", flush=True)
    return judged


def report(judged: Sequence[tuple[Mutant, str]], explained: str) -> int:
    """Print what is for docs/mutants.md; 1 when too many survive."""
    survivors = [mutant.name for mutant, how in judged if not how]
    new = [name for name in survivors if name not in explained]
    print(*table(judged), "", sep="\n")
    print(f"{len(survivors)} survive, {len(new)} of them not explained in {PAGE.relative_to(ROOT)}:")
    print(*[f"- {name}" for name in new], sep="\n")
    crashed = sum(how not in ("", FAILED, SLOW) for _, how in judged)
    print(f"{crashed} of those killed did so before any test: the module could not be imported")
    return int(len(judged) == 0 or 1 - len(survivors) / len(judged) < WANTED)


def main() -> int:
    """1 when fewer than nine in ten were killed."""
    options = argparse.ArgumentParser(prog="make mutants ARGS=...", description=__doc__)
    options.add_argument("--count", type=int, default=400, help="how many mutants, spread over the files (400)")
    options.add_argument("--all", action="store_true", help="every mutant: takes hours")
    options.add_argument("--seed", type=int, default=4, help="which ones are drawn (4)")
    options.add_argument("--file", action="append", choices=MODULES, help="only of this file of batching/")
    options.add_argument("--minutes", type=float, default=15.0, help="stop after so long (15)")
    options.add_argument("--survivors", action="store_true", help="only those listed in docs/mutants.md")
    given = options.parse_args()
    explained = PAGE.read_text("utf-8") if PAGE.exists() else ""
    mutants = [mutant for mutant in all_mutants() if not given.file or mutant.file in given.file]
    if given.survivors:
        mutants = [mutant for mutant in mutants if mutant.name in explained]
    elif not given.all:
        mutants = sample(mutants, given.count, given.seed)
    random.Random(given.seed).shuffle(mutants)  # noqa: S311  # where the time is over early, it is so for every file
    os.chdir(ROOT)
    print(f"{len(mutants)} mutants; first, which test runs which line", flush=True)
    map_ = survey()
    print(f"{len(map_.seconds)} tests and worlds", flush=True)
    return report(run(mutants, map_, 60 * given.minutes), explained)


if __name__ == "__main__":
    sys.exit(main())
