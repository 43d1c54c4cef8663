"""Batches handed to a device one after the other, their rows waited for later (`engine.forwards.Launches`)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from embedfleet_server.engine.forwards import Launches
from embedfleet_server.engine.protocols import Item, Pair, Rows
from embedfleet_server.engine.raised import OutOfMemory
from embedfleet_server.models.array_model import ArrayForward, ArrayModel
from embedfleet_server.models.lanes import Lanes
from tests.support.loading import load_any
from tests.support.tiny_models import make_bert, make_deberta
from tests.support.tiny_tasks import make_reranker
from tests.support.varlen import needs_gpu

pytestmark = pytest.mark.requirement("S2")
TEXTS = ["a cat", "the dog sleeps under the old table", "rain", "some more words of another length"]
Make = Callable[[Path], Path]


def items(model: ArrayModel, texts: list[str]) -> list[Item]:
    return [Pair("which animal", text) for text in texts] if model.info.task == "Rerank" else list(texts)


@pytest.mark.parametrize("make", [make_bert, make_deberta, make_reranker])
def test_what_is_launched_is_the_forward(make: Make, tmp_path: Path) -> None:
    """Packed, padded, of both tasks: two batches under way at once, each has the bits it has alone."""
    model = load_any(make(tmp_path))
    assert isinstance(model, ArrayModel)
    assert isinstance(model, Launches)
    batches = [model.encode(items(model, texts), "") for texts in (TEXTS, TEXTS[::-1][1:])]
    model._forward.lanes = None
    under_way = [model.launch(batch) for batch in batches]
    for batch, rows in reversed(list(zip(batches, under_way, strict=True))):
        assert rows is not None
        np.testing.assert_array_equal(rows(), model.forward(batch))


def test_a_cpu_without_lanes_computes_where_it_is_told_to(tmp_path: Path) -> None:
    """So that its results need no second thread; a GPU goes on by itself."""
    model = load_any(make_bert(tmp_path))
    assert isinstance(model, ArrayModel)
    model._forward.lanes = None
    assert not model.launches
    model._forward._device = torch.device("cuda:0")
    assert model.launches


@pytest.mark.parametrize("make", [make_bert, make_reranker])
def test_batches_on_lanes_are_launched(make: Make, tmp_path: Path) -> None:
    """Two under way at once, waited for in any order, each with the bits it has alone and its own memory."""
    model = load_any(make(tmp_path))
    assert isinstance(model, ArrayModel)
    model._forward.lanes = Lanes(2)
    assert model.launches
    batches = [model.encode(items(model, TEXTS * times), "") for times in (40, 20)]
    alone = [(model.forward(batch), model.peak_mib()) for batch in batches]
    under_way = [(model.launch(batch), model.peak_mib()) for batch in batches]
    for (rows, peak), (launched, peak_launched) in reversed(list(zip(alone, under_way, strict=True))):
        assert launched is not None
        np.testing.assert_array_equal(launched(), rows)
        assert peak_launched == peak
    assert alone[0][1] != alone[1][1]


@pytest.mark.parametrize("bits", [False, True])
def test_what_all_threads_compute_is_not_launched(bits: bool, tmp_path: Path) -> None:
    """Few tokens, and any that are to have the same bits in any company: that is for the device's own thread."""
    model = load_any(make_bert(tmp_path))
    assert isinstance(model, ArrayModel)
    model._forward.lanes = Lanes(2)
    model.keep_bits(on=bits)
    assert model.launch(model.encode(TEXTS * (40 if bits else 1), "")) is None


def test_memory_that_runs_out_on_a_lane_is_told_when_rows_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is by a GPU."""

    def fails(forward: ArrayForward, piece: object) -> Callable[[], Rows]:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: not enough memory")

    model = load_any(make_bert(tmp_path))
    assert isinstance(model, ArrayModel)
    model._forward.lanes = Lanes(2)
    monkeypatch.setattr(ArrayForward, "launched", fails)
    rows = model.launch(model.encode(TEXTS * 40, ""))
    assert rows is not None
    with pytest.raises(OutOfMemory):
        rows()


def test_memory_that_runs_out_is_told_when_rows_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is when the batch is handed over."""

    def never() -> Rows:
        raise RuntimeError("CUDA error: out of memory")

    model = load_any(make_bert(tmp_path))
    assert isinstance(model, ArrayModel)
    model._forward.lanes = None
    monkeypatch.setattr(ArrayForward, "launched", lambda forward, piece: never)
    rows = model.launch(model.encode(["a"], ""))
    assert rows is not None
    with pytest.raises(OutOfMemory):
        rows()
    monkeypatch.setattr(ArrayForward, "launched", lambda forward, piece: never())
    with pytest.raises(OutOfMemory):
        model.launch(model.encode(["a"], ""))


@needs_gpu
def test_on_a_gpu_many_batches_are_under_way(tmp_path: Path) -> None:
    """A hundred, none waited for before all are handed over: every one has the rows it has alone."""
    model = load_any(make_bert(tmp_path), gpu_count=1)
    assert isinstance(model, ArrayModel)
    batches = [model.encode([f"{text} {number}" for text in TEXTS], "") for number in range(100)]
    under_way = [model.launch(batch) for batch in batches]
    for batch, rows in zip(batches, under_way, strict=True):
        assert rows is not None
        np.testing.assert_array_equal(rows(), model.forward(batch))
