"""`python -m tests.soak.rollover`: the ledger over many rollovers; 1 when a request was lost, with a line for each."""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from tests.support.ledger import summary, troubles
from tests.support.rollover import Plan, run

_SHOWN = 20


def main() -> int:
    """Run, say what came of it."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--requests", type=int, default=100_000, help="at least so many (%(default)s)")
    options.add_argument("--rollovers", type=int, default=30, help="%(default)s")
    given = options.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        load, journal = asyncio.run(run(Path(directory), Plan(given.rollovers, given.requests), _say))
    found = troubles(load.seen, journal)
    print(f"{given.rollovers} rollovers, {len(load.seen):,} requests in {time.monotonic() - began:.0f} s")
    print(summary(load.seen))
    print(*found[:_SHOWN], f"{len(found)} lost or told differently by client and server", sep="\n")
    return int(bool(found))


def _say(words: str) -> None:
    print(words, flush=True)


if __name__ == "__main__":
    sys.exit(main())
