"""Pipelines against clients that glue calls together (G1); `python -m tests.benchmarks.pipelines` prints one run.

Hybrid: the dense, sparse and multi-vector rows of one text, as one pipeline call against three calls one after the
other. One step: a pipeline that only embeds against the model's own route. Both sides speak HTTP to the same server;
what is compared alternates, so that what else the machine does falls on both.
"""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp

from tests.benchmarks import ours
from tests.benchmarks.report import Goal, Section, show
from tests.support.process import REAL, process
from tests.support.texts import mixed_texts

_RATE, _LATENCY, _COST = 1.3, 0.6, 0.03  # of issue 10
_CLIENTS, _TEXTS, _ROUNDS = 8, 64, 5
_LONE = 40  # texts one after the other in each round of the one-step part
Call = Callable[[aiohttp.ClientSession, str], Awaitable[None]]


def measure(say: Callable[[str], None], rounds: int = _ROUNDS) -> Section:
    """Both parts on a server of their own."""
    with tempfile.TemporaryDirectory(prefix="embedfleet-bench-") as folder:
        models = _models(Path(folder))
        with process(Path(folder), module=REAL, models=models, pipelines=_graphs()) as server:
            server.line("ready")
            section = asyncio.run(_measured(server.record.url, rounds, say))
    section.notes.append(
        f"Hybrid: {_CLIENTS} clients with one text at a time, {_TEXTS} mixed texts a round. The three models are tiny "
        "(2 layers, 32 wide, seeded weights): what is measured is the way around the forwards, not the forwards. On a "
        "CPU forwards take turns, so that with large models both sides come nearer to each other."
    )
    section.notes.append("One step: all-MiniLM-L6-v2 in float32, one client, one text at a time.")
    return section


def _models(folder: Path) -> list[dict[str, Any]]:
    from tests.support.tiny_models import make_bert
    from tests.support.tiny_tasks import make_multi_vector, make_sparse

    made = {"dense": make_bert, "sparse": make_sparse, "late": make_multi_vector}
    found = [{"name": name, "source": {"path": str(make(folder / name))}} for name, make in made.items()]  # type: ignore[operator]
    return [*found, {"name": "lone", "source": {"path": str(ours.model_directory())}, "dtype": "Float32"}]


def _graphs() -> list[dict[str, Any]]:
    names = ("dense", "sparse", "late")
    steps = [{"name": name, "embed": {"model": name}, "from": ["input"]} for name in names]
    one = [{"name": "lone", "embed": {"model": "lone"}, "from": ["input"]}]
    return [
        {"name": "hybrid", "steps": steps, "outputs": [*names]},
        {"name": "one", "steps": one, "outputs": ["lone"]},
    ]


async def _measured(url: str, rounds: int, say: Callable[[str], None]) -> Section:
    section = Section("Pipelines against client calls", ("what", "texts/s", "p50, ms"))
    async with aiohttp.ClientSession(url) as session:
        hybrid = await _compared(session, {"three calls": _three, "pipeline": _hybrid}, _TEXTS, _CLIENTS, rounds)
        one = await _compared(session, {"model": _model, "one step": _one}, _LONE, 1, rounds)
    for name, (rates, waits) in (hybrid | one).items():
        section.rows.append((name, f"{median(rates):.0f}", f"{median(waits) * 1000:.2f}"))
        say(f"pipelines, {name}: {median(rates):.0f} texts/s, p50 {median(waits) * 1000:.2f} ms")
    rate = _ratio(hybrid["pipeline"][0], hybrid["three calls"][0])
    wait = _ratio(hybrid["pipeline"][1], hybrid["three calls"][1])
    cost = _ratio(one["one step"][1], one["model"][1]) - 1
    section.goals += [
        Goal(f"hybrid pipeline >= {_RATE} x the texts/s of three calls", f"{rate:.2f} x", rate >= _RATE),
        Goal(f"and <= {_LATENCY} x their p50", f"{wait:.2f} x", wait <= _LATENCY),
        Goal(f"one step costs <= {_COST:.0%} over calling the model (p50)", f"{cost:+.1%}", cost <= _COST),
    ]
    return section


Series = tuple[list[float], list[float]]
"""Texts per second and median latency of each round."""


async def _compared(
    session: aiohttp.ClientSession, calls: dict[str, Call], texts: int, clients: int, rounds: int
) -> dict[str, Series]:
    """The calls in turn, `rounds` times; the first round warms up and does not count. Texts never come twice."""
    made: dict[str, Series] = {name: ([], []) for name in calls}
    for number in range(rounds + 1):
        for place, (name, call) in enumerate(calls.items()):
            fresh = mixed_texts(texts, seed=1000 * texts + 10 * number + place if number else place)
            seconds, waits = await _driven(session, call, fresh, clients)
            if number:
                made[name][0].append(texts / seconds)
                made[name][1].append(median(waits))
    return made


async def _driven(
    session: aiohttp.ClientSession, call: Call, texts: Sequence[str], clients: int
) -> tuple[float, list[float]]:
    left, waits = list(texts), list[float]()

    async def client() -> None:
        while left:
            text, began = left.pop(), time.perf_counter()
            await call(session, text)
            waits.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return time.perf_counter() - began, waits


def _ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """The median of the rounds' own ratios."""
    return median(a / b for a, b in zip(one, other, strict=True))


async def _post(session: aiohttp.ClientSession, path: str, body: dict[str, Any]) -> None:
    async with session.post(path, json=body) as answer:
        told = await answer.read()
        if answer.status != 200 or b'"error"' in told[:200]:
            raise RuntimeError(f"{path}: {answer.status} {told[:300]!r}")


async def _three(session: aiohttp.ClientSession, text: str) -> None:
    await _post(session, "/v1/embeddings", {"model": "dense", "input": [text], "encoding_format": "base64"})
    await _post(session, "/models/sparse/embed_sparse", {"inputs": [text]})
    await _post(session, "/models/late/embed_all", {"inputs": [text]})


async def _hybrid(session: aiohttp.ClientSession, text: str) -> None:
    await _post(session, "/v1/pipelines/hybrid", {"inputs": [text], "encoding_format": "base64"})


async def _model(session: aiohttp.ClientSession, text: str) -> None:
    await _post(session, "/v1/embeddings", {"model": "lone", "input": [text], "encoding_format": "base64"})


async def _one(session: aiohttp.ClientSession, text: str) -> None:
    await _post(session, "/v1/pipelines/one", {"inputs": [text], "encoding_format": "base64"})


if __name__ == "__main__":
    show(measure(print))
