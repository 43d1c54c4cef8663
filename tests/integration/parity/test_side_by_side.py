"""One engine serves a model of each task at once, each with its own rows (S3)."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedfleet.api import Batching, BatchingSettings
from embedfleet_server.engine import Answer, Engine, ModelConfig
from embedfleet_server.engine.protocols import Item, Model, Pair
from embedfleet_server.engine.rows import Ragged, SparseRows
from embedfleet_server.engine.scoring import scores
from tests.support.loading import load_any
from tests.support.texts import mixed_texts
from tests.support.tiny_models import make_bert
from tests.support.tiny_tasks import make_multi_vector, make_reranker, make_sparse

TEXTS = mixed_texts(60)


@pytest.mark.requirement("S3", "B1")
def test_four_tasks_in_one_engine(tmp_path: Path) -> None:
    """Requests to all of them in flight together; every answer is what its model alone gives."""
    directories = {
        "dense": make_bert(tmp_path / "dense"),
        "sparse": make_sparse(tmp_path / "sparse"),
        "late": make_multi_vector(tmp_path / "late"),
        "rerank": make_reranker(tmp_path / "rerank"),
    }
    alone = {name: load_any(directory) for name, directory in directories.items()}
    answers = asyncio.run(served(directories))
    assert [answer.info.task for answer in answers.values()] == ["Dense", "Sparse", "MultiVector", "Rerank"]
    rows = {name: answer.rows for name, answer in answers.items()}
    wanted: dict[str, Any] = {name: alone[name].forward(encoded(alone[name], name)) for name in directories}
    assert np.allclose(rows["dense"], wanted["dense"], atol=1e-4)
    assert isinstance(rows["sparse"], SparseRows)
    assert np.allclose(rows["sparse"].dense(), wanted["sparse"].dense(), atol=1e-4)
    assert isinstance(rows["late"], Ragged)
    assert np.array_equal(rows["late"].offsets, wanted["late"].offsets)
    assert np.allclose(rows["late"].vectors, wanted["late"].vectors, atol=1e-4)
    assert np.allclose(scores(rows["rerank"], "Sigmoid"), scores(wanted["rerank"], "Sigmoid"), atol=1e-4)


def items(name: str) -> list[Item]:
    return [Pair(TEXTS[0], text) for text in TEXTS] if name == "rerank" else list(TEXTS)


def encoded(model: Model, name: str) -> list[Any]:
    return model.encode(items(name), "")


async def served(directories: dict[str, Path]) -> dict[str, Answer]:
    configs = {
        name: ModelConfig(name, lambda directory=directory: load_any(directory))  # type: ignore[misc]
        for name, directory in directories.items()
    }
    engine = Engine("all", configs, BatchingSettings(generation=1, batching=Batching(max_batch_size=16)))
    await engine.start()
    try:
        answers = await asyncio.gather(*(engine.embed(name, items(name)) for name in directories))
    finally:
        await engine.stop(patience=10)
    return dict(zip(directories, answers, strict=True))
