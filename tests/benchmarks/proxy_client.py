"""The client of `tests.benchmarks.proxy`, in a pod: batches of 64 texts to a service, straight and by the API server.

Prints a line of JSON for each run.
"""

import asyncio
import itertools
import json
import os
import time
from collections.abc import Sequence

import numpy as np

from embedfleet import environment
from embedfleet.kube.config import entered
from embedfleet.kube.credentials import Credentials
from embedfleet.kube.record import ClusterRecord
from embedfleet.kube.ways import Proxied
from embedfleet.transport import Transport
from embedfleet.way import Direct, Way
from embedfleet.wire import Options, Rows, request_body
from tests.benchmarks import loads

BATCH = 64
"""Texts of a request."""
WAYS = ("direct", "proxy")
_BODIES = 16  # different ones, so that nothing is alike in a batch


def main(
    service: str, namespace: str, key: str, concurrencies: Sequence[int], seconds: float, repetitions: int
) -> None:
    """Every concurrency by both ways in turn, so that noise hits both; each run lasts `seconds`."""
    record = ClusterRecord(service, namespace)
    credentials = Credentials(entered(None, environment.read(os.environ)))
    ways: dict[str, Way] = {
        "direct": Direct(f"http://{service}.{namespace}.svc:8080", key),
        "proxy": Proxied(credentials, record, key),
    }
    texts = loads.mix(BATCH * _BODIES)
    bodies = [request_body(chunk, Options()) for chunk in loads.chunks(texts, BATCH)]
    asyncio.run(_all(ways, bodies, concurrencies, seconds, repetitions))


async def _all(
    ways: dict[str, Way], bodies: list[bytes], concurrencies: Sequence[int], seconds: float, repetitions: int
) -> None:
    lines = {name: Transport(way.url, None, way) for name, way in ways.items()}
    try:
        for line in lines.values():
            await _run(line, bodies, max(concurrencies), seconds / 4)  # connections made, code warm
        for repetition, concurrency in itertools.product(range(repetitions), concurrencies):
            for name in WAYS if repetition % 2 == 0 else reversed(WAYS):
                taken, latencies = await _run(lines[name], bodies, concurrency, seconds)
                told = {"way": name, "concurrency": concurrency, "seconds": taken, "latencies": latencies}
                print(json.dumps(told), flush=True)
    finally:
        for line in lines.values():
            await line.close()


async def _run(line: Transport, bodies: list[bytes], concurrency: int, seconds: float) -> tuple[float, list[float]]:
    """Seconds until the last of the batches begun within `seconds` was answered, and what each took."""
    latencies: list[float] = []
    began = time.perf_counter()

    async def worker(first: int) -> None:
        for turn in itertools.count(first):
            start = time.perf_counter()
            if start - began >= seconds:
                return
            await line.post(bodies[turn % len(bodies)], BATCH, _place)
            latencies.append(time.perf_counter() - start)

    async with asyncio.TaskGroup() as group:
        for number in range(concurrency):
            group.create_task(worker(number))
    return time.perf_counter() - began, latencies


def _place(dimensions: int) -> Rows:
    return np.empty((BATCH, dimensions), np.float32)
