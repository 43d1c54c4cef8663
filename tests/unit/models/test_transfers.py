"""What goes to a device and comes back: one buffer, nothing overwritten before it was copied."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedfleet_server.models.transfers import PinnedTransfers, PlainTransfers, Staging, transfers
from tests.support.varlen import needs_gpu

pytestmark = pytest.mark.requirement("S2")
SIZES = st.lists(st.lists(st.integers(0, 40_000), min_size=1, max_size=4), min_size=1, max_size=12)


class Queue:
    """Copies that are not made before they are waited for, as a device may be slow to; memory is counted."""

    def __init__(self) -> None:
        self.staging = Staging(self._allocate, self._copy)
        self.allocated: list[int] = []
        self.waits = 0
        self.copied: list[list[int]] = []
        self._queued: list[torch.Tensor] = []

    def _allocate(self, count: int) -> torch.Tensor:
        if count:
            self.allocated.append(count)
        return torch.empty(count, dtype=torch.int64)

    def _copy(self) -> None:
        self.waits += 1
        self.copied += [part.tolist() for part in self._queued]
        self._queued = []

    def put(self, arrays: list[Any]) -> None:
        part = self.staging.put(arrays)
        self._queued.append(part)

    def end(self) -> list[list[int]]:
        self._copy()
        return self.copied


@given(batches=SIZES)
def test_nothing_is_overwritten_before_it_was_copied(batches: list[list[int]]) -> None:
    """However much is put in, and however late it is copied, what arrives is what was put in, array behind array."""
    queue, expected, number = Queue(), [], 0
    for sizes in batches:
        arrays = [np.arange(number := number + 1, number + size, dtype=np.int64) for size in sizes]
        expected.append(np.concatenate(arrays).tolist())
        queue.put(arrays)
    assert queue.end() == expected


def test_one_buffer_serves_many_batches() -> None:
    """Small batches are never waited for until the buffer is full, and it grows only for one that it cannot hold."""
    queue = Queue()
    for _ in range(64):
        queue.put([np.zeros((2, 512), np.int64)])
    assert (queue.allocated, queue.waits) == ([65_536], 1)  # the wait before it is made
    queue.put([np.zeros(1, np.int64)])
    assert (queue.allocated, queue.waits) == ([65_536], 2)
    queue.put([np.zeros(100_000, np.int64)])
    assert (queue.allocated, queue.waits) == ([65_536, 131_072], 3)


def test_on_a_cpu_nothing_is_copied() -> None:
    """The array's memory is the tensor's, and the other way."""
    array = np.arange(6).reshape(2, 3)
    cpu = transfers(torch.device("cpu"))
    assert isinstance(cpu, PlainTransfers)
    (tensor,) = cpu.put(array)
    assert tensor.data_ptr() == array.ctypes.data
    assert cpu.fetch(tensor)().ctypes.data == array.ctypes.data


def test_a_gpu_has_copies_of_its_own() -> None:
    """Made without touching the device, so that what a GPU would do can be asked where there is none."""
    assert isinstance(transfers(torch.device("cuda:0")), PinnedTransfers)


@needs_gpu
def test_to_a_gpu_and_back() -> None:
    """While the device is busy: thousands of batches in one small buffer, all as they were, and from pinned memory."""
    device = torch.device("cuda:0")
    there, busy = transfers(device), torch.randn(4096, 4096, device=device)
    fetched, expected = [], []
    for number in range(2000):
        busy = torch.tanh(busy @ busy) if number % 50 == 0 else busy
        one, other = np.arange(number, number + 300), np.full((3, 100), number)
        tensors = there.put(one, other)
        assert [tensor.shape for tensor in tensors] == [(300,), (3, 100)]
        fetched.append(there.fetch(tensors[0] + tensors[1].reshape(-1)))
        expected.append(one + number)
    for found, wanted in zip(fetched, expected, strict=True):
        assert np.array_equal(found(), wanted)
