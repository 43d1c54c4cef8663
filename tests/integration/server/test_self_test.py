"""The self-test before Ready, with real models and the references that the command makes of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from embedfleet_server import reference as command
from embedfleet_server.engine.errors import ModelLoadFailed
from embedfleet_server.models.compiled import ON_CPU
from embedfleet_server.models.reference import FILE
from tests.support.loading import load_any
from tests.support.process import REAL, process
from tests.support.tiny_models import TINY, make_bert
from tests.support.tiny_tasks import RERANK, SPARSE, make_inference_free, make_multi_vector

pytestmark = pytest.mark.requirement("S5")
MODELS = {
    **{name: TINY[name] for name in ("bert-prompts", "bert-dense-normalized", "xlm-roberta", "decoder-left")},
    **{name: SPARSE[name] for name in list(SPARSE)[:2]},
    **{name: RERANK[name] for name in ("rerank-bert", "rerank-modern-bert")},
    "multi-vector": make_multi_vector,
    "inference-free": make_inference_free,
}


def referenced(directory: Path) -> Path:
    """The model with the reference that the command writes."""
    assert command.main(["--model", str(directory)]) == 0
    return directory


@pytest.mark.parametrize("name", MODELS)
def test_the_server_meets_sentence_transformers(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every task: a reference by plain sentence-transformers is met in float32 and bfloat16; another's is not."""
    directory = referenced(MODELS[name](tmp_path / "tiny"))
    assert f"wrote {directory / FILE}" in capsys.readouterr().out
    for dtype in ("Float32", "BFloat16", "Auto"):
        load_any(directory, dtype=dtype)
    content = json.loads((directory / FILE).read_text())
    key = next(key for key in ("rows", "values", "vectors") if key in content)
    content[key] = content[key][::-1]
    (directory / FILE).write_text(json.dumps(content))
    with pytest.raises(ModelLoadFailed, match=r"fails its self-test: in float32 it has a cosine of"):
        load_any(directory)


def test_a_model_without_files_has_no_reference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command names what is wrong and exits 1."""
    assert command.main(["--model", str(tmp_path / "missing")]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_a_failed_self_test_keeps_the_server_from_ready(tmp_path: Path) -> None:
    """Weights that are not those of the reference: the cause in `/state`, not ready; the other model serves."""
    good = referenced(make_bert(tmp_path / "good", normalize=True))
    bad = make_bert(tmp_path / "bad", pooling="max")
    (bad / FILE).write_text((good / FILE).read_text())
    models: list[Any] = [
        {"name": "semantic", "source": {"path": str(good)}},
        {"name": "code", "source": {"path": str(bad)}},
    ]
    store = ["--store", str(tmp_path / "store"), "--threads", "1"]
    with process(tmp_path, *store, models=models, module=REAL) as server:
        server.line("  semantic")
        server.line("  code")
        assert server.ask("GET", "/ready", observe=True)[0].status == 503
        state = server.ask("GET", "/state", observe=True)[1]
        found = {model["name"]: model for model in state["models"]}
        assert found["code"]["state"] == "Failed"
        assert "it fails its self-test" in found["code"]["cause"]
        assert FILE in found["code"]["cause"]
        response, answer = server.ask("POST", "/v1/embeddings", {"model": "code", "input": "x"})
        assert (response.status, answer["error"]["code"]) == (503, "model_failed")
        response, _ = server.ask("POST", "/v1/embeddings", {"model": "semantic", "input": "x"})
        assert response.status == 200
        (listed,) = [one for one in server.ask("GET", "/v1/models")[1]["data"] if one["id"] == "semantic"]
        assert listed["embedfleet"]["precision"] == response.headers["X-Embedfleet-Precision"]
        assert listed["embedfleet"]["precision_reason"]
        assert listed["embedfleet"]["layout"] in ("packed", "padded")
        assert listed["embedfleet"]["layout_reason"]
        for shown in (listed["embedfleet"], found["semantic"]):
            assert (shown["compiled"], shown["compiled_reason"]) == ({}, ON_CPU)
        assert found["code"]["compiled_reason"] is None
        assert found["semantic"]["precision_reason"] == listed["embedfleet"]["precision_reason"]
