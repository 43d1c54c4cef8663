"""A server process with real models of every task under one pipeline: by the SDK, by the command line, refused."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder

from embedfleet.client import Service
from embedfleet.pipelines import Chunks, Sparse
from tests.support.graphs import Plain, embed, step
from tests.support.process import REAL, ROOT, Process, process
from tests.support.tiny_models import make_bert
from tests.support.tiny_tasks import make_multi_vector, make_reranker, make_sparse

pytestmark = pytest.mark.requirement("G1", "G2")
MAKERS = {"dense": make_bert, "sparse": make_sparse, "late": make_multi_vector, "judge": make_reranker}
STEPS: list[Plain] = [
    step("cut", chunk={"by": "Sentences", "size": 1}),
    embed("dense", "cut", model="dense"),
    embed("context", "cut", model="dense", late=True),
    embed("sparse", "cut", model="sparse"),
    embed("tokens", "cut", model="late", input="Document"),
    step("scores", "cut", rerank={"model": "judge"}),
    step("whole", "dense", pool={"by": "Mean"}),
]
GRAPH: Plain = {
    "name": "index",
    "steps": STEPS,
    "outputs": [one["name"] for one in STEPS],
}
DOCUMENT: Plain = {"text": "Return the name. Raise an error! What is a file?", "query": "name of the file"}


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: make(root / name) for name, make in MAKERS.items()}  # type: ignore[operator]


@pytest.fixture(scope="module")
def server(directories: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    models = [{"name": name, "source": {"path": str(path)}, "dtype": "Float32"} for name, path in directories.items()]
    with process(tmp_path_factory.mktemp("server"), module=REAL, models=models, pipelines=[GRAPH]) as running:
        running.line("is ready")
        yield running


def test_every_task_as_its_library_computes_it(server: Process, directories: dict[str, Path]) -> None:
    """Chunks of a document by a model of each task at once, asked by the SDK's sync client."""
    with Service(server.record.url) as service:
        (card,) = service.pipelines
        assert (card.name, card.problems) == ("index", ())
        (result,) = service.pipeline("index").run([DOCUMENT])
        assert result.error is None
    chunks, sparse = result["cut"], result["sparse"]
    assert isinstance(chunks, Chunks)
    assert isinstance(sparse, Sparse)
    texts = list(chunks.texts)
    assert texts == ["Return the name.", "Raise an error!", "What is a file?"]
    dense = SentenceTransformer(str(directories["dense"]), device="cpu").encode(texts)
    np.testing.assert_allclose(result["dense"], dense, rtol=1e-4, atol=1e-5)  # type: ignore[arg-type]
    np.testing.assert_allclose(result["whole"], dense.mean(axis=0, keepdims=True), rtol=1e-4, atol=1e-5)  # type: ignore[arg-type]
    assert np.shape(result["context"]) == dense.shape  # type: ignore[arg-type]
    splade = SparseEncoder(str(directories["sparse"]), device="cpu")
    wanted: Any = splade.encode(texts, convert_to_sparse_tensor=False)
    np.testing.assert_allclose(sparse.dense(), wanted.numpy(), rtol=1e-4, atol=1e-5)
    late: Any = MultiVectorEncoder(str(directories["late"]), device="cpu").encode_document(texts)
    for own, other in zip(result["tokens"], late, strict=True):  # type: ignore[arg-type]
        np.testing.assert_allclose(own, np.asarray(other), rtol=1e-4, atol=1e-5)
    pairs = [(DOCUMENT["query"], text) for text in texts]
    scores = CrossEncoder(str(directories["judge"]), device="cpu").predict(pairs)
    np.testing.assert_allclose(result["scores"], scores, rtol=1e-4, atol=1e-5)  # type: ignore[arg-type]


def run(server: Process, lines: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "embedfleet", "run", "index", "--url", server.record.url]
    return subprocess.run(
        command, input=lines, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=120, check=False
    )


def test_by_the_command_line(server: Process) -> None:
    """A line of JSON for each line in, in order; the exit status says that one of them failed, its line why."""
    told = run(server, f"{json.dumps(DOCUMENT)}\nJust a text.\n")
    first, second = map(json.loads, told.stdout.splitlines())
    assert first["outputs"]["cut"][0] == {"text": "Return the name.", "of": 0, "start": 0, "stop": 16}
    assert len(first["outputs"]["scores"]) == 3
    assert (second["index"], second["error"]["step"], second["error"]["code"]) == (1, "scores", "invalid_input")
    assert (told.returncode, "1 of the inputs failed" in told.stderr) == (1, True)
    wrong = run(server, '{"text": \n')
    assert (wrong.returncode, "line 1 begins like JSON" in wrong.stderr) == (2, True)


def test_a_graph_that_cannot_run_keeps_the_server_from_starting(tmp_path: Path) -> None:
    """The error names pipeline, step and what must hold; the exit status is that of wrong settings."""
    models = [{"name": "semantic", "source": {"path": "unused"}, "task": "Dense", "dimensions": 8}]
    steps = [embed("dense"), step("short", "dense", truncate={"dimensions": 9})]
    wrong = {"name": "index", "steps": steps, "outputs": ["short"]}
    with process(tmp_path, models=models, pipelines=[wrong]) as server:
        _, said = server.running.communicate(timeout=60)
    assert server.running.returncode == 2
    assert "pipeline 'index', step 'short': truncate.dimensions is 9: it must be at most 8" in said
