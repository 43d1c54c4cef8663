"""The server as users start it: its own entry point, real models made on the spot."""

from pathlib import Path

import pytest

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
