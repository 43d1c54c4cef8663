"""What decides sparse, multi-vector and rerank rows is in their fingerprint."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.support.loading import load_any
from tests.support.tiny_tasks import make_auto_encoder, make_multi_vector, make_reranker, make_sparse

pytestmark = pytest.mark.requirement("S3")
Make = Callable[[Path], Path]


def of(make: Make, directory: Path) -> str:
    return load_any(make(directory)).info.fingerprint


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (make_sparse, lambda path: make_sparse(path, pooling="sum")),
        (make_sparse, lambda path: make_sparse(path, activation="log1p_relu")),
        (make_sparse, lambda path: make_sparse(path, max_active=9)),
        (make_auto_encoder, lambda path: make_auto_encoder(path, kept=5)),
        (make_multi_vector, lambda path: make_multi_vector(path, skipped=(",",))),
        (make_multi_vector, lambda path: make_multi_vector(path, skipped_of=("query", "document"))),
        (make_multi_vector, lambda path: make_multi_vector(path, query_length=8)),
        (make_multi_vector, lambda path: make_multi_vector(path, expansion={"strategy": "min", "length": 8})),
        (
            lambda path: make_multi_vector(path, expansion={"strategy": "fixed", "length": 8}),
            lambda path: make_multi_vector(path, expansion={"strategy": "fixed", "length": 8, "attend": True}),
        ),
        (make_multi_vector, lambda path: make_multi_vector(path, pooled=2)),
        (make_reranker, lambda path: make_reranker(path, activation=torch.nn.Identity())),
    ],
    ids=[
        "pooling", "activation", "max_active_dims", "kept", "skiplist", "skiplist of queries", "query length",
        "expansion", "attending", "token pooling", "score activation",
    ],
)  # fmt: skip
def test_each_setting_counts(tmp_path: Path, one: Make, other: Make) -> None:
    """The same weights with another setting are another space; with the same settings they are the same."""
    first = of(one, tmp_path / "one")
    assert of(one, tmp_path / "again") == first
    assert of(other, tmp_path / "other") != first


def test_the_task_counts(tmp_path: Path) -> None:
    """One directory served as dense and as sparse gives two spaces."""
    make_sparse(tmp_path / "tiny")
    bare = tmp_path / "tiny.transformer"
    assert load_any(bare).info.fingerprint != load_any(bare, task="Sparse").info.fingerprint
