"""What happens while Prometheus looks: a service of two servers, calm, too busy, asked wrongly; an operator."""

import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from embedfleet.api.local import LocalRecord
from tests.benchmarks import loads
from tests.benchmarks.child import ROOT
from tests.benchmarks.ours import ready
from tests.benchmarks.ports import free_port
from tests.cluster.cluster import Cluster
from tests.dashboards.prometheus import Target
from tests.support.cluster_objects import answer
from tests.support.hollow_servers import HollowServers
from tests.support.operating import operating
from tests.support.operators import manifest_of, until
from tools.weights import DEFAULT_STORE, REPOSITORY, fill

SERVICE = "semantic"
_MODELS = ("semantic", "titles")
_CRDS = ROOT / "crds"
_RESYNC_SECONDS = 10.0
_SPEC = {
    "models": [{"name": name, "source": {"huggingFace": {"repo": REPOSITORY}}, "dtype": "Float32"} for name in _MODELS],
    "gpu": {"count": 0},
    "batching": {"maxQueuedRequests": 600, "vectorCacheMiB": 16},
}


@dataclass(frozen=True, slots=True)
class Act:
    """A stretch of the load: requests a second over all servers, and inputs of each."""

    name: str
    share: float
    """Of the whole time."""
    rate: float
    inputs: int
    wrong: float = 0.0
    """Share of requests whose text is empty, so that they are refused."""


ACTS = (
    Act("calm", 0.25, rate=8, inputs=2),
    Act("busy", 0.2, rate=12, inputs=16),
    Act("too much", 0.2, rate=40, inputs=64),
    Act("asked wrongly", 0.15, rate=8, inputs=2, wrong=0.3),
    Act("calm again", 0.2, rate=8, inputs=2),
)


@contextlib.contextmanager
def servers(folder: Path, count: int = 2) -> Iterator[list[LocalRecord]]:
    """The pods of a service, as processes of this machine, ready."""
    fill(Path(DEFAULT_STORE).expanduser())
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(_server(folder / f"{SERVICE}-{number}")) for number in range(count)]


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[LocalRecord]:
    folder.mkdir()
    head = {"apiVersion": "embedfleet.dev/v1alpha1", "kind": "EmbeddingService", "metadata": {"name": SERVICE}}
    manifest, log = folder / "manifest.yaml", folder / "server.log"
    manifest.write_text(yaml.safe_dump({**head, "spec": _SPEC}), encoding="utf-8")
    program = str(Path(sys.executable).with_name("embedfleet"))
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(folder), "EMBEDFLEET_STORE": DEFAULT_STORE, "HF_HUB_OFFLINE": "1"}
    command = [program, "serve", "-f", str(manifest), "--port", "0"]
    with log.open("wb") as out, subprocess.Popen(command, cwd=ROOT, env=environ, stdout=out, stderr=out) as running:
        try:
            yield ready(running, environ, log)
        finally:
            running.terminate()
            running.wait(60)


@contextlib.contextmanager
def operator() -> Iterator[tuple[Cluster, int]]:
    """An operator on a real API server whose nodes are pretended, and its observation port."""
    with Cluster(hollow=3) as cluster, HollowServers(lambda _: answer(1)) as pods:
        cluster.kubectl("apply", "-f", str(_CRDS))
        cluster.kubectl("wait", "crd", "--all", "--for=condition=Established", "--timeout=60s")
        port = free_port()
        user = cluster.kubeconfig_for("operator", ["system:masters"])
        with operating(user, pods.url, _RESYNC_SECONDS, port):
            until(lambda: json.loads(cluster.kubectl("get", "lease", "-n", "default", "-o", "json"))["items"])
            yield cluster, port


def targets(records: Sequence[LocalRecord], operator_port: int) -> list[Target]:
    """What to scrape, with the labels of a cluster."""
    found = [
        Target(record.observe_url.removeprefix("http://"), _labels("search", SERVICE, f"{SERVICE}-{number}"))
        for number, record in enumerate(records)
    ]
    operator = _labels("embedfleet", "embedfleet-operator", "embedfleet-operator-0")
    return [*found, Target(f"127.0.0.1:{operator_port}", operator)]


def _labels(namespace: str, job: str, pod: str) -> dict[str, str]:
    return {"namespace": namespace, "job": job, "pod": pod}


async def load(records: Sequence[LocalRecord], seconds: float) -> None:
    """All acts, one after the other, by open-loop clients that do not wait for each other."""
    texts = _texts()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        for act in ACTS:
            print(f"{act.name} …", flush=True)
            await _play(act, act.share * seconds, [record.url for record in records], texts, session)


def _texts() -> Iterator[str]:
    """Of the mixed load's lengths; one in ten comes again, so that the cache finds it, and all others are new."""
    mix = loads.mix()
    for number in itertools.count():
        text = mix[number % len(mix)]
        yield text if number % 10 == 0 else f"{text} {number}"


async def _play(
    act: Act, seconds: float, urls: Sequence[str], texts: Iterator[str], session: aiohttp.ClientSession
) -> None:
    loop = asyncio.get_running_loop()
    start, running = loop.time(), set[asyncio.Task[None]]()
    for number in range(int(seconds * act.rate)):
        await asyncio.sleep(start + number / act.rate - loop.time())
        is_wrong = number % 100 < act.wrong * 100
        some = [""] * act.inputs if is_wrong else list(itertools.islice(texts, act.inputs))
        url, model = urls[number % len(urls)], _MODELS[number // len(urls) % len(_MODELS)]
        asked = asyncio.create_task(_ask(session, url, {"model": model, "input": some}))
        running.add(asked)
        asked.add_done_callback(running.discard)
    await asyncio.gather(*running)


async def _ask(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> None:
    with contextlib.suppress(aiohttp.ClientError):  # refused, or the caller's fault: what the curves are to show
        async with session.post(f"{url}/v1/embeddings", json=body) as answered:
            await answered.read()


async def services(cluster: Cluster, seconds: float, count: int = 6) -> None:
    """Services that come one by one, are changed, and go."""
    steps = [*((_create, number) for number in range(count)), *((_delete, number) for number in range(count // 2))]
    for step, number in steps:
        await asyncio.to_thread(step, cluster, f"service-{number}")
        await asyncio.sleep(seconds / (len(steps) + 2))


def _create(cluster: Cluster, name: str) -> None:
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(manifest_of(name, replicas=3)))


def _delete(cluster: Cluster, name: str) -> None:
    cluster.kubectl("delete", "embed", name)
