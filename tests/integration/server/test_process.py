"""The server as users start it: its own entry point, real models made on the spot."""

import contextlib
import os
from pathlib import Path

import pytest

from embedfleet_server import environment
from tests.support.process import REAL, process
from tests.support.tiny_models import WIDTH, make_bert


@pytest.mark.requirement("B12", "S1", "S5")
def test_one_model_serves_and_one_cannot_load(tmp_path: Path) -> None:
    """A real model gives vectors beside one whose weights are missing, which fails alone with the cause."""
    good = make_bert(tmp_path / "weights", normalize=True)
    models = [
        {"name": "semantic", "source": {"path": str(good)}, "dtype": "Float32", "dimensions": 8},
        {"name": "code", "source": {"path": str(tmp_path / "missing")}, "required": False},
    ]
    store = ["--store", str(tmp_path / "store"), "--threads", "1"]
    with process(tmp_path, *store, models=models, module=REAL) as server:
        assert "Dense" in server.line("  semantic")
        failed = server.line("  code")
        assert "failed: " in failed
        assert str(tmp_path / "missing") in failed
        server.line("is ready at")
        body = {"model": "semantic", "input": ["some words", "and more"]}
        response, answer = server.ask("POST", "/v1/embeddings", body)
        assert (response.status, [len(entry["embedding"]) for entry in answer["data"]]) == (200, [8, 8])
        response, answer = server.ask("POST", "/v1/embeddings", body | {"dimensions": WIDTH})
        assert (response.status, len(answer["data"][0]["embedding"])) == (200, WIDTH)
        response, answer = server.ask("POST", "/v1/embeddings", body | {"model": "code"})
        assert (response.status, answer["error"]["code"]) == (503, "model_failed")
        assert "drained: finished 0 requests" in server.stop()


BY_OTHERS = "jemalloc_bg_thd"
"""A thread of pyarrow's, begun while torch is imported, before the importing thread is freed; it computes nothing."""


def places() -> list[set[int]]:
    """The processors of each core that this process may use; empty where the system does not tell."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    mine = os.sched_getaffinity(0)
    files = (Path(f"/sys/devices/system/cpu/cpu{one}/topology/thread_siblings_list") for one in mine)
    found = {frozenset(numbers(file.read_text(encoding="ascii"))) & mine for file in files if file.exists()}
    return [set(one) for one in found]


def numbers(told: str) -> list[int]:
    """Of a list as the kernel writes it: `0-2,5`."""
    ends = [(*map(int, part.split("-")),) for part in told.strip().split(",")]
    return [number for end in ends for number in range(end[0], end[-1] + 1)]


@pytest.mark.requirement("N1")
@pytest.mark.skipif(
    len(places()) < 2 or environment.quota() < environment.cores() or not environment.can_bind(),
    reason="hardware: one core, or not all of the cores' time, or no word on where threads run",
)
def test_each_thread_that_computes_has_a_core_and_no_other_thread_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenMP binds torch's threads; what imports torch, what loads models, and what these start may run anywhere."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    cores = os.sched_getaffinity(0)
    kept = [make_bert(tmp_path / name, normalize=True) for name in ("semantic", "code")]
    models = [{"name": one.name, "source": {"path": str(one)}, "dtype": "Float32"} for one in kept]
    store = ["--store", str(tmp_path / "store"), "--threads", str(len(cores))]
    with process(tmp_path, *store, models=models, module=REAL) as server:
        server.line("is ready at")
        for model in ("semantic", "code"):
            texts = ["word " * (1 + number % 40) for number in range(200)]
            response, _ = server.ask("POST", "/v1/embeddings", {"model": model, "input": texts})
            assert response.status == 200
        found = affinities(server.running.pid)
    computing = [on for name, on in found if name == "device cpu"]
    assert len(computing) == len(cores)
    assert {frozenset(on) for on in computing} == {frozenset(place) for place in places()}
    assert {name for name, on in found if name != "device cpu" and on != cores} <= {BY_OTHERS}


def affinities(pid: int) -> list[tuple[str, set[int]]]:
    """Name and processors of each thread of a process."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # ended meanwhile
            found.append(((task / "comm").read_text().strip(), os.sched_getaffinity(int(task.name))))
    return found
