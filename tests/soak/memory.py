"""`python -m tests.soak.memory --minutes 10`: the server process with a real model under mixed load; 1 when it grows.

Of ten minutes, the lowest resident size within the last may lie so much above the lowest within the one that follows
the third: lowest, since a batch's own tensors and an answer on its way come and go. What the environment says reaches
the server.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.support import real_load
from tests.support.leaks import grown, held, resident_mib, slope
from tests.support.process import REAL, Process, process
from tools.weights import DEFAULT_STORE, REPOSITORY, fill

_MOST_MIB = 8.0 + 48.0
"""As of `leaks`, and a block of the size in which a full batch is computed: memory grew by one at a time (measured)."""
_WINDOW = 60.0  # seconds
_SETTLED = 0.3  # of the time: until then caches fill and pools grow
_LARGEST_REQUESTS = 4  # so that every thread of the device has had one
_WARM_SECONDS = 10.0
_AFTER_SECONDS = 10.0
Sample = tuple[float, float]
"""Seconds since the load began, MiB."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the samples of a run say."""

    rate: float
    """MiB a minute, from the settled time on."""
    growth: float
    """MiB from the lowest within a minute of the settled time to the lowest within the last minute."""


def verdict(samples: Sequence[Sample], seconds: float) -> Verdict:
    """Judge samples taken over so many seconds."""
    settled = [(at, mib) for at, mib in samples if at >= seconds * _SETTLED]
    first = min(mib for at, mib in settled if at <= settled[0][0] + _WINDOW)
    last = min(mib for at, mib in settled if at >= settled[-1][0] - _WINDOW)
    return Verdict(slope(settled) * 60, last - first)


def main() -> int:
    """Run, say what came of it."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--minutes", type=float, default=10.0, help="of load (%(default)s)")
    options.add_argument("--most-mib", type=float, default=_MOST_MIB, help="of growth (%(default)s)")
    given = options.parse_args()
    store = Path(DEFAULT_STORE).expanduser()
    fill(store)
    models = [{"name": "semantic", "source": {"huggingFace": {"repo": REPOSITORY}}}]
    with (
        tempfile.TemporaryDirectory() as directory,
        process(Path(directory), "--store", str(store), models=models, module=REAL) as server,
    ):
        server.line("is ready at")
        return _soak(server, given.minutes * 60, given.most_mib)


def _soak(server: Process, seconds: float, most: float) -> int:
    port = urlsplit(server.record.url).port or 0
    print(f"largest batches first: {dict(asyncio.run(real_load.largest(port, _LARGEST_REQUESTS)))}", flush=True)
    asyncio.run(_load(server, port, _WARM_SECONDS))
    before = held(server)
    samples, statuses = asyncio.run(_load(server, port, seconds))
    until = time.monotonic() + _AFTER_SECONDS
    while (more := grown(before, held(server))) and time.monotonic() < until:
        time.sleep(0.1)
    found = verdict(samples, seconds)
    print(f"answers by status: {dict(sorted(statuses.items()))}")
    print(f"from {seconds * _SETTLED:.0f} s to {seconds:.0f} s: {found.growth:+.2f} MiB (most: {most:g})", end="")
    print(f", slope {found.rate:+.3f} MiB/min")
    print(*(more or ["descriptors, threads, tasks and permits are what they were"]), sep="\n")
    return int(bool(more) or set(statuses) != {200} or found.growth >= most)


async def _load(server: Process, port: int, seconds: float) -> tuple[list[Sample], Counter[int]]:
    """Load for so long; resident memory each second, told each minute."""
    began = time.monotonic()
    samples: list[Sample] = []
    running = asyncio.create_task(real_load.run(port, lambda: time.monotonic() - began < seconds))
    while not running.done():
        samples.append((time.monotonic() - began, resident_mib(server)))
        if len(samples) % 60 == 0:
            print(_minute(samples), flush=True)
        await asyncio.wait([running], timeout=1.0)
    return samples, running.result()


def _minute(samples: Sequence[Sample]) -> str:
    """The last minute in words."""
    last = [mib for _, mib in samples[-60:]]
    span = f"{min(last):.1f} to {max(last):.1f}"
    return f"after {samples[-1][0] / 60:4.1f} min: {sum(last) / len(last):7.1f} MiB, {span} within the minute"


if __name__ == "__main__":
    sys.exit(main())
