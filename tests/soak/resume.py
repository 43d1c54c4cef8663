"""`python -m tests.soak.resume`: runs of `embed_to` killed at random moments; 1 unless every vector came out right."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.support.fake_server import FakeServer, serving
from tests.support.resuming import run


def main() -> int:
    """Run, say what came of it."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kills", type=int, default=200, help="%(default)s")
    options.add_argument("--seed", type=int, default=1, help="of the moments (%(default)s)")
    given = options.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, serving(FakeServer()) as fake:
        told = run(fake.url, Path(folder), given.kills, given.seed)
    print(f"{told.killed} killed, {told.right} of {told.whole} right, in {time.monotonic() - began:.0f} s")
    return int(told.right != told.whole)


if __name__ == "__main__":
    sys.exit(main())
