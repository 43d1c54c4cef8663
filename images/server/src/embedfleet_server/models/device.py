"""Where a model computes, and how precisely."""

import logging
from dataclasses import dataclass

import torch

from embedfleet.api.models import Dtype

_log = logging.getLogger(__name__)
_NAMED = {"Float32": torch.float32, "BFloat16": torch.bfloat16, "Float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Placement:
    """A device by torch's name (`cpu`, `cuda:0`) and the type that the forward computes in."""

    device: str
    dtype: torch.dtype

    @property
    def precision(self) -> str:
        """The type's name: `float32`, `bfloat16`, `float16`."""
        return str(self.dtype).removeprefix("torch.")


def place(dtype: Dtype, gpu_count: int) -> Placement:
    """Where and how precisely a model with `dtype` computes in a service with `gpu_count` GPUs."""
    device = _device(gpu_count)
    return Placement(device, _auto(device) if dtype == "Auto" else _NAMED[dtype])


def _device(gpu_count: int) -> str:
    if gpu_count == 0:
        return "cpu"
    if torch.cuda.is_available():
        return "cuda:0"
    _log.warning("the manifest asks for %d GPU, torch finds none here: computing on the CPU", gpu_count)
    return "cpu"


def _auto(device: str) -> torch.dtype:
    """On a CPU float32: whether bfloat16 is faster there depends on AMX, and is much slower without."""
    if device != "cpu" and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return torch.float32
