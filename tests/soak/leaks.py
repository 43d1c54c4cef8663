"""`python -m tests.soak.leaks --seconds 600`: a server under mixed load, with cancels and faults; 1 when it leaks.

Descriptors, threads, tasks and permits must come back to what they were; resident memory must grow by less than 8 MiB
from three tenths of the time to its end (of ten minutes: from the third to the tenth).
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.support import mixed_load
from tests.support.leaks import grown, held, resident_mib, slope
from tests.support.process import Process, process

_MOST_MIB = 8.0
_SETTLED = 0.3  # of the time: until then caches fill and pools grow
_WARM_SECONDS = 3.0
_AFTER_SECONDS = 10.0


def main() -> int:
    """Run, say what came of it."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=600.0, help="of load (%(default)s)")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as directory, process(Path(directory)) as server:
        server.line("is ready at")
        return _soak(server, given.seconds)


def _soak(server: Process, seconds: float) -> int:
    port = urlsplit(server.record.url).port or 0
    asyncio.run(_load(server, port, _WARM_SECONDS))
    before = held(server)
    samples, done = asyncio.run(_load(server, port, seconds))
    until = time.monotonic() + _AFTER_SECONDS
    while (more := grown(before, held(server))) and time.monotonic() < until:
        time.sleep(0.1)
    settled = [(at, mib) for at, mib in samples if at >= seconds * _SETTLED]
    rate = slope(settled)
    growth = rate * seconds * (1 - _SETTLED)
    print(f"answers by status: {dict(sorted(done.statuses.items()))}; clients that left: {done.left:,}")
    print(f"resident: {samples[0][1]:.1f} MiB at first, {samples[-1][1]:.1f} at last; slope {rate * 60:+.3f} MiB/min")
    print(f"growth from {seconds * _SETTLED:.0f} s to {seconds:.0f} s: {growth:+.2f} MiB (most: {_MOST_MIB:g})")
    print(*(more or ["descriptors, threads, tasks and permits are what they were"]), sep="\n")
    return int(bool(more) or growth >= _MOST_MIB)


async def _load(server: Process, port: int, seconds: float) -> tuple[list[tuple[float, float]], mixed_load.Done]:
    """Load for so long; resident memory each second, and what was done."""
    began = time.monotonic()
    samples: list[tuple[float, float]] = []
    running = asyncio.create_task(mixed_load.run(port, lambda: time.monotonic() - began < seconds))
    while not running.done():
        samples.append((time.monotonic() - began, resident_mib(server)))
        await asyncio.wait([running], timeout=1.0)
    return samples, running.result()


if __name__ == "__main__":
    sys.exit(main())
