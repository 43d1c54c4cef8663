"""The benchmark's part for a GPU, on a tiny shape where there is none."""

import pytest
import torch

from tests.benchmarks import gpu
from tests.support.varlen import needs_gpu

pytestmark = pytest.mark.requirement("N1")
TINY = gpu.Shape(layers=1, width=16, inner=32, heads=2, tokens=16, words=100)
LITTLE = gpu.Amounts(bare=64, served=128, alone=2)


def test_every_figure_is_measured() -> None:
    """The whole program, model, forward and server, with the CPU in the GPU's place: it says that it is the CPU."""
    said: list[str] = []
    section = gpu.measure(said.append, 1, gpus=0, shape=TINY, amounts=LITTLE)
    whats = {(row[0], row[1].split(",")[0]) for row in section.rows}
    assert whats == {
        ("16 tokens each", "bare forward"),
        ("mixed lengths", "bare forward"),
        ("one text of 16 tokens", "over HTTP"),
        ("64 texts of 16 tokens", "over HTTP"),
        ("16 tokens each", "over HTTP"),
    }
    assert {row[1].rsplit(", ", 1)[1] for row in section.rows if row[1].startswith("bare")} == {"cpu"}
    assert section.notes[0] == "computed on the CPU"
    assert len(said) == len(section.rows)


@pytest.mark.skipif(torch.cuda.is_available(), reason="hardware: a GPU is here")
def test_without_a_gpu_it_says_so() -> None:
    """No figure of a CPU stands where one of a GPU is due."""
    section = gpu.measure(print, 1)
    assert (section.rows, section.notes) == ([], ["not measured: no GPU here"])


@needs_gpu
def test_on_a_gpu_it_is_packed() -> None:
    """The same program on the device it is for."""
    section = gpu.measure(print, 1, shape=gpu.Shape(layers=2, tokens=64), amounts=LITTLE)
    assert any("packed, cuda:0" in row[1] for row in section.rows)
