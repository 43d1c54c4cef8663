"""How much of a device's memory forwards take, and how full the devices are."""

import threading
from collections.abc import Sequence
from typing import Any

import torch

MIB = 1 << 20


class Peaks:
    """What forwards on one device take at their peak beyond the weights: measured on CUDA, reckoned on a CPU."""

    def __init__(self, device: str, modules: Sequence[torch.nn.Module]) -> None:
        self._device = torch.device(device)
        self._bytes_per_token = bytes_per_token(modules)
        self._before = 0
        self._pieces = 0
        self._lock = threading.Lock()
        self.last_mib: float | None = None

    def begin(self) -> None:
        """A batch starts, in the thread of its device, which is the current one there for whatever names none."""
        self._pieces = 0
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)

    def piece(self, tokens: int) -> None:
        """A part of the batch with so many padded tokens is computed; the largest decides."""
        with self._lock:  # pieces may be computed side by side
            self._pieces = max(self._pieces, tokens)

    def beside(self, count: int, tokens: int) -> None:
        """The whole batch is handed over on a CPU: so many rows are computed at a time, of at most so many tokens."""
        self.last_mib = count * tokens * self._bytes_per_token / MIB if self._bytes_per_token else None

    def end(self) -> None:
        """The batch is computed; or on CUDA handed over, since memory is given out then."""
        if self._device.type == "cuda":
            self.last_mib = (torch.cuda.max_memory_allocated(self._device) - self._before) / MIB
        elif self._bytes_per_token:
            self.last_mib = self._pieces * self._bytes_per_token / MIB


def bytes_per_token(modules: Sequence[torch.nn.Module]) -> int:
    """Bytes of activations that a layer of the transformer holds at once for each token; 0 where there is none.

    The widest moment is inside the feed-forward block: its inner layer before and after the activation function and as
    the next product reorders it, and its input, residual and output. Layers follow one another, so that their number
    does not matter. (MiniLM, float32, 2048 tokens: 45 MiB; the process was seen to grow by 49 to 54.)
    """
    config: Any = getattr(getattr(modules[0], "auto_model", None), "config", None)
    hidden = getattr(config, "hidden_size", None)
    if hidden is None:
        return 0
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    width = torch.finfo(next(modules[0].parameters()).dtype).bits // 8
    return int(3 * (inner + hidden) * width)


def used_and_total() -> dict[str, tuple[int, int]]:
    """Bytes in use on each CUDA device and all it has, by torch's name; what torch only keeps for later is free."""
    if not torch.cuda.is_available():
        return {}
    return {f"cuda:{index}": _of(index) for index in range(torch.cuda.device_count())}


def _of(index: int) -> tuple[int, int]:
    free, total = torch.cuda.mem_get_info(index)
    kept = torch.cuda.memory_reserved(index) - torch.cuda.memory_allocated(index)
    return total - free - kept, total
