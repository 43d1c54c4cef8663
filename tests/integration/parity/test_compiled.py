"""Forms compiled by inductor, here on the CPU: they give the same (S2), none is made in service, a disk keeps them."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo
from numpy.typing import NDArray
from torch._dynamo.utils import counters

from embedfleet_server.models import linear, packing
from embedfleet_server.models.compiled import Plan
from embedfleet_server.models.compiling import Bucket, Limit
from embedfleet_server.models.dense import DenseModel
from embedfleet_server.models.inductor import Inductor
from tests.support.loading import load
from tests.support.tiny_models import TINY

pytestmark = [
    pytest.mark.requirement("S2"),
    pytest.mark.skipif(
        shutil.which("g++") is None, reason="inductor needs a C++ compiler: apt-get install g++ (the images have it)"
    ),
]
ONE, TWO = Bucket(1, 16), Bucket(2, 32)
TEXTS = ["a short one", "and another that is somewhat longer than the first"]
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def inductor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compiles into the test's own directory, and from nothing."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def padded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., DenseModel]:
    """Loads a model whose batches are padded, as they are where it is compiled."""
    left = packing.Layout("padded", "by this test")
    monkeypatch.setattr(packing, "packed", lambda *given, **more: (None, left))
    # On a GPU layers are torch's own; packed ones, which a CPU has where they are faster, inductor refuses.
    monkeypatch.setattr(linear, "_is_worth_it", lambda _: False)
    return lambda name, **fields: load(TINY[name](tmp_path / name), **fields)


def always_faster(work: Sequence[Callable[[], object]], tries: int, clock: Callable[[], float]) -> list[float]:
    """Whether it is on this machine is not what these tests are about."""
    return [0.1, 1.0]


def compile_it(model: DenseModel, *buckets: Bucket, seconds: float = 600.0) -> None:
    model.compile_as(
        Plan(torch.device("cpu"), model.info.vocabulary, [Inductor()], buckets, Limit(seconds), always_faster)
    )


def closeness(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return float(((left * right).sum(axis=1) / lengths).min())


@pytest.mark.parametrize(
    ("name", "dtype", "least"),
    [
        ("bert-mean", "Float32", 0.99999),
        ("bert-mean", "BFloat16", 0.999),
        ("modern-bert", "Float32", 0.99999),
        ("decoder-left", "Float32", 0.99999),
    ],
)
def test_compiled_and_eager_give_the_same(
    padded: Callable[..., DenseModel], name: str, dtype: str, least: float
) -> None:
    """Each architecture: two texts of unlike length in a bucket of two."""
    model = padded(name, dtype=dtype)
    encoded = model.encode(TEXTS, "")
    expected = model.forward(encoded)
    compile_it(model, TWO)
    assert (model.info.compiled, model.info.compiled_reason) == ({"2x32": "inductor"}, "")
    assert model._forward.run_compiled(encoded) is not None
    assert closeness(model.forward(encoded), expected) >= least


def test_nothing_is_compiled_while_requests_are_served(padded: Callable[..., DenseModel], tmp_path: Path) -> None:
    """Shapes within a bucket are filled up to it, others run eagerly: torch is asked for no further graph."""
    model = padded("bert-mean")
    eager = load(tmp_path / "bert-mean")
    compile_it(model, ONE, TWO)
    assert (set(model.info.compiled), model.info.compiled_reason) == ({"1x16", "2x32"}, "")
    graphs = counters["stats"]["unique_graphs"]
    assert graphs == 2
    for texts in (TEXTS, TEXTS[:1], TEXTS[1:], [*TEXTS, "x"], ["word " * 60], ["a", "b"]):
        encoded = model.encode(texts, "")
        assert closeness(model.forward(encoded), eager.forward(encoded)) >= 0.99999
    assert counters["stats"]["unique_graphs"] == graphs
    assert set(model.info.compiled) == {"1x16", "2x32"}


@pytest.fixture
def threads() -> Iterator[int]:
    """How many torch computes with, which is as it was after the test."""
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def test_a_form_that_torch_wants_to_compile_anew_is_dropped(padded: Callable[..., DenseModel], threads: int) -> None:
    """As where the number of threads changed: the text is computed eagerly, nothing is compiled, `info` says so."""
    model = padded("bert-mean")
    compile_it(model, ONE)
    assert (model.info.compiled, model.info.compiled_reason) == ({"1x16": "inductor"}, "")
    encoded = model.encode(TEXTS[:1], "")
    before = model.forward(encoded)
    assert model.info.compiled == {"1x16": "inductor"}
    made = counters["inductor"]["fxgraph_cache_miss"] + counters["inductor"]["fxgraph_cache_hit"]
    torch.set_num_threads(threads + 1)
    assert closeness(model.forward(encoded), before) >= 0.99999
    assert model.info.compiled == {}
    assert "1x16 was dropped: " in model.info.compiled_reason
    assert "nothing is compiled while requests are served" in model.info.compiled_reason
    assert counters["inductor"]["fxgraph_cache_miss"] + counters["inductor"]["fxgraph_cache_hit"] == made


def test_a_transformer_that_is_not_one_graph_runs_eagerly(padded: Callable[..., DenseModel]) -> None:
    """The reason is in torch's own words."""
    model = padded("bert-mean")
    modules: Any = model._forward._modules

    def breaks(module: Any, given: Any, made: Any) -> None:
        torch._dynamo.graph_break()

    modules[0].model.embeddings.register_forward_hook(breaks)
    compile_it(model, ONE)
    assert model.info.compiled == {}
    assert model.info.compiled_reason.startswith("no inductor of 1x16: Unsupported: ")
    assert model.forward(model.encode(TEXTS, "")).shape == (2, model.info.dimensions)


_STARTS = """
import json, sys
from pathlib import Path
import torch
from torch._dynamo.utils import counters
from embedfleet_server.models import linear, packing
linear._is_worth_it = lambda _: False
packing.packed = lambda *given, **more: (None, packing.Layout("padded", "by this test"))
from embedfleet_server.models.compiled import Plan
from embedfleet_server.models.compiling import Bucket, Limit
from embedfleet_server.models.inductor import Inductor
from tests.support.loading import load
model = load(Path(sys.argv[1]))
plan = Plan(torch.device("cpu"), model.info.vocabulary, [Inductor()], [Bucket(1, 16)], Limit(600), lambda *_: [0.1, 1])
model.compile_as(plan)
found = counters["inductor"] + counters["aot_autograd"]
print(json.dumps({"compiled": dict(model.info.compiled), **found}))
"""


def test_a_second_start_finds_what_the_first_compiled(tmp_path: Path) -> None:
    """In the directory on disk: torch counts a miss in one process, and a hit and no miss in the next."""
    directory = TINY["bert-mean"](tmp_path / "bert")
    environ = {
        **os.environ,
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "kept"),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }

    def start() -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-c", _STARTS, str(directory)],
            cwd=ROOT, env=environ, check=True, capture_output=True, text=True,
        )  # fmt: skip
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    first, second = start(), start()
    assert first["compiled"] == second["compiled"] == {"1x16": "inductor"}
    assert "fxgraph_cache_hit" not in first
    assert first["fxgraph_cache_miss"] == 1
    assert "fxgraph_cache_miss" not in second
    assert second.get("fxgraph_cache_hit", 0) + second.get("autograd_cache_hit", 0) >= 1
