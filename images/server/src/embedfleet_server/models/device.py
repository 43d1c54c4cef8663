"""Where a model computes, and how precisely."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
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


def found_gpus() -> int:
    """How many GPUs torch can use here."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def devices_of(gpu_count: int, found: Callable[[], int] = found_gpus) -> tuple[str, ...]:
    """Torch's names of the devices for a service with `gpu_count` GPUs: so many, or as many as are `found`."""
    if gpu_count == 0:
        return ("cpu",)
    count = min(gpu_count, found())
    if count == 0:
        _log.warning("the manifest asks for %d GPU, torch finds none here: computing on the CPU", gpu_count)
        return ("cpu",)
    if count < gpu_count:
        _log.warning("the manifest asks for %d GPUs, torch finds %d here: computing on these", gpu_count, count)
    return tuple(f"cuda:{index}" for index in range(count))


def is_cpu(device: str) -> bool:
    """Whether torch's name is one of the CPU."""
    return torch.device(device).type == "cpu"


def current(device: str) -> AbstractContextManager[object]:
    """Makes it torch's current device meanwhile: streams and graphs that name none are made there."""
    return nullcontext() if is_cpu(device) else torch.cuda.device(device)


def hardware(device: str, cpuinfo: Path = _CPUINFO) -> Hardware:
    """What the device can do, as far as precisions go."""
    if not is_cpu(device):
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
    return float("inf") if is_cpu(device) else float(torch.cuda.mem_get_info(device)[0])
