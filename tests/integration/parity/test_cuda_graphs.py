"""Small batches as CUDA graphs, on a GPU: they give the same (S2), and what cannot be captured runs eagerly."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from embedfleet_server.models.compiled import Plan, plan_for
from embedfleet_server.models.compiling import Bucket, Limit, Maker
from embedfleet_server.models.dense import DenseModel
from embedfleet_server.models.graphs import Captured
from embedfleet_server.models.inductor import Inductor
from tests.support.loading import load
from tests.support.tiny_models import TINY

pytestmark = [
    pytest.mark.requirement("S2"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="hardware: CUDA graphs need a GPU, and torch finds none"),
]
BUCKETS = (Bucket(1, 16), Bucket(2, 32))
TEXTS = ["a short one", "and another that is somewhat longer than the first"]


def closeness(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return float(((left * right).sum(axis=1) / lengths).min())


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("tiny")
    return lambda name: root / name if (root / name).is_dir() else TINY[name](root / name)


def with_forms(model: DenseModel, *makers: Maker) -> None:
    """Forms of both buckets, whatever is faster for models so small."""
    limit = Limit(600)
    model.compile_as(
        Plan(torch.device("cuda:0"), model.info.vocabulary, makers, BUCKETS, limit, lambda *given: [0.1, 1.0])
    )


@pytest.mark.parametrize("dtype", ["Float32", "BFloat16"])
@pytest.mark.parametrize("name", ["bert-mean", "xlm-roberta", "modern-bert", "gemma", "decoder-left"])
def test_a_graph_gives_the_same(directories: Callable[[str], Path], name: str, dtype: str) -> None:
    """Two texts, then one, then the two again: what a graph made is not written over by the next."""
    model = load(directories(name), gpu_count=1, dtype=dtype)
    encoded = model.encode(TEXTS, "")
    both, one = model.forward(encoded), model.forward(encoded[:1])
    with_forms(model, Captured(torch.device("cuda:0")))
    assert model.info.compiled == {"1x16": "CUDA graph", "2x32": "CUDA graph"}
    least = 0.99999 if dtype == "Float32" else 0.999
    for texts, expected in ((encoded, both), (encoded[:1], one), (encoded, both)):
        assert model._forward.run_compiled(texts) is not None
        assert closeness(model.forward(texts), expected) >= least


def test_a_graph_of_what_inductor_made(directories: Callable[[str], Path]) -> None:
    """As a server has it, both makers after each other."""
    model = load(directories("bert-mean"), gpu_count=1)
    encoded = model.encode(TEXTS, "")
    expected = model.forward(encoded)
    device = torch.device("cuda:0")
    with_forms(model, Captured(device), Captured(device, Inductor()))
    assert set(model.info.compiled.values()) == {"CUDA graph of inductor"}
    assert closeness(model.forward(encoded), expected) >= 0.99999


def test_what_waits_for_the_gpu_is_not_captured(directories: Callable[[str], Path]) -> None:
    """The model serves as it is, and the reason is CUDA's own."""
    model = load(directories("bert-mean"), gpu_count=1)
    modules: Any = model._forward._modules
    modules[0].model.embeddings.register_forward_hook(lambda module, given, made: print(float(made.sum())))
    with_forms(model, Captured(torch.device("cuda:0")))
    assert model.info.compiled == {}
    assert model.info.compiled_reason.startswith("no CUDA graph of 1x16")
    assert model.forward(model.encode(TEXTS, "")).shape == (2, model.info.dimensions)


def test_the_plan_of_a_gpu(directories: Callable[[str], Path]) -> None:
    """Buckets up to the model's longest text, which has 64 tokens here."""
    model = load(directories("bert-mean"), gpu_count=1)
    plan = plan_for(torch.device("cuda:0"), model.info, 60)
    assert {bucket.tokens for bucket in plan.buckets} == {16, 32, 64}
    assert [maker.name for maker in plan.makers] == ["CUDA graph", "CUDA graph of inductor"]
