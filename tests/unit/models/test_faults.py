"""What torch's errors mean."""

from collections.abc import Sequence

import pytest
import torch

from embedfleet_server.engine.errors import DeviceLost
from embedfleet_server.engine.faults import OutOfMemory
from embedfleet_server.models.faults import is_out_of_memory, is_sticky, told

pytestmark = pytest.mark.requirement("B22", "B23")
ADVICE = "\nCUDA kernel errors might be asynchronously reported at some other API call.\n"
STICKY = [
    "CUDA error: an illegal memory access was encountered",
    "CUDA error: device-side assert triggered",
    "CUDA error: misaligned address",
    "CUDA error: unspecified launch failure",
    "CUDA error: an illegal instruction was encountered",
    "CUDA error: the launch timed out and was terminated",
    "CUDA error: uncorrectable ECC error encountered",
    "CUDA error: unknown error",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED: an illegal memory access was encountered",
]
PASSING = [
    "CUDA error: invalid configuration argument",
    "CUDA error: out of memory",
    "CUDA error: no kernel image is available for execution on the device",
    "mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)",
    "the text says: an illegal memory access was encountered",
    "index out of range in self",
]


@pytest.mark.parametrize("words", STICKY)
def test_errors_after_which_the_process_must_end(words: str) -> None:
    """Every error of which CUDA says that the process must be started anew, with torch's advice below it or not."""
    assert is_sticky(RuntimeError(words))
    assert is_sticky(torch.AcceleratorError(words + ADVICE))
    assert not is_out_of_memory(RuntimeError(words))


@pytest.mark.parametrize("words", PASSING)
def test_errors_that_leave_the_device_usable(words: str) -> None:
    """Of one call, of the batch, or of no device at all: ending the process would help nobody."""
    assert not is_sticky(RuntimeError(words))
    assert not is_sticky(ValueError(words))


def test_too_little_memory_is_told_apart() -> None:
    """torch's own class, and the words of the libraries below it."""
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried …"))
    assert not is_out_of_memory(RuntimeError("out of cheese"))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError(STICKY[0] + ADVICE), DeviceLost),
        (torch.OutOfMemoryError("CUDA out of memory."), OutOfMemory),
        (ValueError("no"), ValueError),
    ],
)
def test_a_forward_raises_what_its_error_means(error: Exception, kind: type[Exception]) -> None:
    """In torch's first line, and with no traceback of the failed forward, which would keep its tensors."""

    class Model:
        @told
        def forward(self, batch: Sequence[int]) -> Sequence[int]:
            raise error

    with pytest.raises(kind) as caught:
        Model().forward([1])
    assert str(caught.value) == str(error).splitlines()[0]
    if kind is not ValueError:
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
