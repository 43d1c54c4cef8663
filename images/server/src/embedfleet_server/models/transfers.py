"""What a forward needs, to its device, and what it gives, back: on CUDA by way of pinned memory, nothing waited for.

A copy from memory that may be swapped out makes the calling thread wait, and so does one back. From pinned memory it is
queued: whole numbers go on a stream of their own, beside what the device still computes, and only its own forward waits
for them. What comes back is waited for by an event, at the last moment, asleep, and maybe in another thread.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

Whole = NDArray[np.int64]
Fetched = Callable[[], NDArray[Any]]
"""Gives the array once it is there; waits for it."""
_cuda: Any = torch.cuda  # its streams and events have no types
_LEAST = 1 << 16  # whole numbers: 512 KiB, a batch of 16 384 tokens with its positions, mask and places


class Transfers(Protocol):
    """To a device and back."""

    def put(self, *arrays: Whole) -> list[torch.Tensor]:
        """The arrays on the device, shapes kept."""

    def fetch(self, made: torch.Tensor) -> Fetched:
        """What gives a tensor of the device as an array, which is the caller's own."""


def transfers(device: torch.device) -> Transfers:
    """Those of a device; a GPU's serves one thread at a time, and what it fetches any other."""
    return PinnedTransfers(device) if device.type == "cuda" else PlainTransfers(device)


class PlainTransfers:
    """Of a CPU, where nothing needs copying."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def put(self, *arrays: Whole) -> list[torch.Tensor]:
        """The same memory."""
        return [torch.from_numpy(array).to(self._device) for array in arrays]

    def fetch(self, made: torch.Tensor) -> Fetched:
        """The same memory."""
        return made.cpu().numpy


class Staging:
    """One buffer for all that goes to a device; what is put in lies behind what was put in before, while there is room.

    When there is none it starts anew, once everything in it has been copied: `copied` waits for that.
    """

    def __init__(self, allocate: Callable[[int], torch.Tensor], copied: Callable[[], None]) -> None:
        """`allocate` gives memory for so many whole numbers."""
        self._allocate, self._copied = allocate, copied
        self._buffer = allocate(0)
        self._used = 0

    def put(self, arrays: Sequence[Whole]) -> torch.Tensor:
        """All numbers of the arrays, one array behind the other, shape (their number,): a part of the buffer."""
        count = sum(array.size for array in arrays)
        if self._used + count > len(self._buffer):
            self._copied()
            self._used = 0
        if count > len(self._buffer):
            self._buffer = self._allocate(max(_LEAST, 1 << (count - 1).bit_length()))
        part = self._buffer[self._used : self._used + count]
        np.concatenate([array.reshape(-1) for array in arrays], out=part.numpy())
        self._used += count
        return part


class PinnedTransfers:
    """Of a CUDA device, which is first touched when there is something to copy."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._staging = Staging(_pinned, self._wait)

    def put(self, *arrays: Whole) -> list[torch.Tensor]:
        """In one copy, on the copies' stream; what is computed next waits for it on the device."""
        staged = self._staging.put(arrays)
        with torch.cuda.stream(self._stream):  # memory is got on that stream too, so that it is not still in use
            there = staged.to(self._device, non_blocking=True)
            self._copied.record(self._stream)
        computing = torch.cuda.current_stream(self._device)
        computing.wait_event(self._copied)
        there.record_stream(computing)  # not to be given to the next copy while the forward reads it
        ends = np.cumsum([array.size for array in arrays]).tolist()
        return [there[end - array.size : end].view(array.shape) for end, array in zip(ends, arrays, strict=True)]

    def fetch(self, made: torch.Tensor) -> Fetched:
        """Queued at once; torch keeps pinned memory for the next time, so that the caller gets a copy."""
        host = torch.empty(made.shape, dtype=made.dtype, pin_memory=True)
        host.copy_(made, non_blocking=True)
        # Waiting in the driver's loop would take a core from tokenizers and event loop, of which a pod may have two.
        there = _cuda.Event(blocking=True)
        there.record(torch.cuda.current_stream(self._device))

        def fetched() -> NDArray[Any]:
            there.synchronize()
            array: NDArray[Any] = host.numpy().copy()
            return array

        return fetched

    def _wait(self) -> None:
        self._copied.synchronize()

    @cached_property
    def _stream(self) -> Any:
        return _cuda.Stream(self._device)

    @cached_property
    def _copied(self) -> Any:
        """When the last of what was put was copied."""
        return _cuda.Event()


def _pinned(count: int) -> torch.Tensor:
    return torch.empty(count, dtype=torch.int64, pin_memory=count > 0)
