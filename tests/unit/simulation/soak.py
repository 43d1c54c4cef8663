"""`python -m tests.unit.simulation.soak --seeds 100000`: many worlds, on all cores; prints each seed that fails."""

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor

from tests.unit.simulation.plan import draw
from tests.unit.simulation.replay import command
from tests.unit.simulation.world import World, live

_CHUNK = 250


def trouble(seed: int) -> str | None:
    """What is wrong in the world of a seed, with the line that replays it."""
    try:
        live(World(draw(seed)))
    except Exception as error:  # noqa: BLE001  # a crash is as wrong as an invariant broken
        return f"{command(seed)}\n{type(error).__name__}: {error}"
    return None


def main() -> int:
    """1 when a seed failed."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seeds", type=int, default=100_000)
    options.add_argument("--first", type=int, default=0)
    options.add_argument("--jobs", type=int, default=os.cpu_count())
    given = options.parse_args()
    found = done = 0
    with ProcessPoolExecutor(given.jobs) as pool:
        for said in pool.map(trouble, range(given.first, given.first + given.seeds), chunksize=_CHUNK):
            done += 1
            if said is not None:
                found += 1
                print(said, flush=True)
            if done % 10_000 == 0:
                print(f"{done:,} worlds, {found} failed", flush=True)
    print(f"{done:,} worlds, {found} failed")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
