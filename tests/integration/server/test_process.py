"""The server as users start it: its own entry point, real models made on the spot."""

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


CORES = len(os.sched_getaffinity(0))
OWN = "jemalloc_bg_thd"
"""A thread of pyarrow's, which binds itself."""


@pytest.mark.requirement("N1")
@pytest.mark.skipif(not 1 < CORES <= environment.quota(), reason="hardware: one core, or not all of the cores' time")
def test_each_thread_that_computes_has_a_core_and_no_other_thread_has_one(tmp_path: Path) -> None:
    """OpenMP binds torch's threads; what these start, and the thread that imports torch, may run anywhere."""
    cores, weights = os.sched_getaffinity(0), make_bert(tmp_path / "weights", normalize=True)
    models = [{"name": "semantic", "source": {"path": str(weights)}, "dtype": "Float32"}]
    store = ["--store", str(tmp_path / "store"), "--threads", str(len(cores))]
    with process(tmp_path, *store, models=models, module=REAL) as server:
        server.line("is ready at")
        texts = ["word " * (1 + number % 40) for number in range(200)]
        response, _ = server.ask("POST", "/v1/embeddings", {"model": "semantic", "input": texts})
        assert response.status == 200
        found = affinities(server.running.pid)
    computing = [on for name, on in found if name == "device cpu"]
    assert len(computing) == CORES
    assert set.union(*computing) == cores
    assert all(on < cores for on in computing)
    assert {name for name, on in found if name != "device cpu" and on != cores} <= {OWN}


def affinities(pid: int) -> list[tuple[str, set[int]]]:
    """Name and cores of each thread of a process."""
    tasks = sorted(Path(f"/proc/{pid}/task").iterdir())
    return [((task / "comm").read_text().strip(), os.sched_getaffinity(int(task.name))) for task in tasks]
