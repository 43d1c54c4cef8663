"""`python -m tests.benchmarks.sdk_million`: short texts from a generator through the SDK, by a model that does nothing.

The server is a process that answers rows of zeros as fast as it reads the number of texts; the client is measured in a
process of its own: its speed, its processor time, and its memory beyond the result.
"""

import argparse
import asyncio
import multiprocessing
import resource
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from aiohttp import web

from tests.benchmarks.report import Goal, Section, show

TEXTS, DIMENSIONS = 1_000_000, 384
_MOST_INPUTS = 4096
_MEMORY_MIB, _TEXTS_A_SECOND, _MICROSECONDS = 300, 20_000, 25
_HEADERS = {"X-Embedfleet-Fingerprint": "none", "X-Embedfleet-Queue-Milliseconds": "0"}


def measure(texts: int = TEXTS) -> Section:
    """One run; processor time is the client's alone, of all its threads."""
    spawning = multiprocessing.get_context("spawn")
    receiver, sender = spawning.Pipe(duplex=False)
    server = spawning.Process(target=_serve, args=(sender,))
    server.start()
    try:
        found = _client(spawning, receiver.recv(), texts)
    finally:
        server.kill()
        server.join()
    return _section(texts, found)


def _client(spawning: Any, url: str, texts: int) -> dict[str, float]:
    receiver, sender = spawning.Pipe(duplex=False)
    client = spawning.Process(target=_embed, args=(url, texts, sender))
    client.start()
    sender.close()
    found: dict[str, float] = receiver.recv()
    client.join()
    return found


def _section(texts: int, found: dict[str, float]) -> Section:
    section = Section(f"{texts:,} short texts through the SDK, {DIMENSIONS} dimensions, no model", ("what", "measured"))
    rate, beyond = texts / found["seconds"], found["beyond"] / 2**20
    micro = found["processor"] / texts * 1e6
    section.rows += [
        ("texts/s", f"{rate:,.0f}"),
        ("processor time of the client for a text", f"{micro:.1f} µs"),
        ("peak memory beyond the result and what was there before", f"{beyond:.0f} MiB"),
    ]
    section.goals += [
        Goal(f"{_TEXTS_A_SECOND:,} texts/s", f"{rate:,.0f}", rate >= _TEXTS_A_SECOND),
        Goal(f"client CPU ≤ {_MICROSECONDS} µs a text", f"{micro:.1f} µs", micro <= _MICROSECONDS),
        Goal(f"memory ≤ {_MEMORY_MIB} MiB beyond the result", f"{beyond:.0f} MiB", beyond <= _MEMORY_MIB),
    ]
    return section


def _embed(url: str, texts: int, out: Connection) -> None:
    """The client's process."""
    from embedfleet import Service

    with Service(url) as service:
        service.embed(_short(1000))
        before, used = _peak(), time.process_time()
        began = time.monotonic()
        rows = service.embed(_short(texts))
        seconds, processor = time.monotonic() - began, time.process_time() - used
    assert rows.shape == (texts, DIMENSIONS)
    beyond = max(0, _peak() - before - rows.nbytes)
    out.send({"seconds": seconds, "processor": processor, "beyond": beyond})


def _short(count: int) -> Iterator[str]:
    return (f"a short text of a few words, number {number}" for number in range(count))


def _peak() -> int:
    """Bytes resident at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _serve(out: Connection) -> None:
    """The server's process; every answer of one size is made once."""
    from tests.support.fake_server import npy

    answers: dict[int, bytes] = {}

    async def embeddings(request: web.Request) -> web.Response:
        count = (await request.read()).count(b'","') + 1  # no text of the load holds such marks
        if count not in answers:
            answers[count] = npy(np.zeros((count, DIMENSIONS), np.float32))
        return web.Response(body=answers[count], content_type="application/x-npy", headers=_HEADERS)

    async def models(_: web.Request) -> web.Response:
        own = {"service": "none", "state": "Ready", "dimensions": DIMENSIONS, "max_inputs": _MOST_INPUTS}
        return web.json_response({"data": [{"id": "none", "embedfleet": {**own, "default": True}}]})

    async def main() -> None:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/embeddings", embeddings)
        app.router.add_get("/v1/models", models)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        out.send(f"http://{host}:{port}")
        await asyncio.get_running_loop().create_future()

    asyncio.run(main())


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--texts", type=int, default=TEXTS, help="%(default)s")
    show(measure(options.parse_args().texts))
