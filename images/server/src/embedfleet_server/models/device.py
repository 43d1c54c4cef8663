"""Where a model computes, and how precisely."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from embedfleet_server.models.precision import Hardware

_log = logging.getLogger(__name__)
_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Placement:
    """A device by torch's name (`cpu`, `cuda:0`) and the type that the forward computes in."""

    device: str
    dtype: torch.dtype

    @property
    def precision(self) -> str:
        """The type's name: `float32`, `bfloat16`, `float16`."""
        return str(self.dtype).removeprefix("torch.")


def device_of(gpu_count: int) -> str:
    """Torch's name of the device for a service with `gpu_count` GPUs."""
    if gpu_count == 0:
        return "cpu"
    if torch.cuda.is_available():
        return "cuda:0"
    _log.warning("the manifest asks for %d GPU, torch finds none here: computing on the CPU", gpu_count)
    return "cpu"


def hardware(device: str, cpuinfo: Path = _CPUINFO) -> Hardware:
    """What the device can do, as far as precisions go."""
    if device != "cpu":
        return Hardware(capability=torch.cuda.get_device_capability(device))
    return Hardware(flags=cpu_flags(cpuinfo))


def cpu_flags(cpuinfo: Path = _CPUINFO) -> frozenset[str]:
    """The processor's features by the kernel's names; none where it does not tell."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    told = [line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))]
    return frozenset(told[0]) if told else frozenset()


def free_bytes(device: str) -> float:
    """What a CUDA device has left; a CPU has the host's memory, which others know."""
    return float("inf") if device == "cpu" else float(torch.cuda.mem_get_info(device)[0])
