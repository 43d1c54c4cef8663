"""What torch's errors mean: told by type and words, since torch has one class for nearly all that CUDA can say.

Sticky errors: the CUDA context is lost for this process, and every later call fails the same way (CUDA Runtime API,
cudaError_t: "leaves the process in an inconsistent state … the process must be terminated and relaunched").
"""

import functools
from collections.abc import Callable
from typing import TypeVar

import torch

from embedfleet_server.engine.errors import DeviceLost
from embedfleet_server.engine.raised import OutOfMemory

_Model = TypeVar("_Model")
_Batch = TypeVar("_Batch")
_Rows = TypeVar("_Rows")

_STICKY = (
    "illegal memory access",
    "device-side assert",
    "misaligned address",
    "illegal instruction",
    "unspecified launch failure",
    "launch timed out",
    "hardware stack error",
    "invalid program counter",
    "operation not supported on global/shared address space",
    "invalid address space",
    "uncorrectable ecc error",
    "uncorrectable nvlink error",
    "gpu is lost",
    "fallen off the bus",
    "context is destroyed",
    "device unavailable",
    "driver shutting down",
    "cuda error: unknown error",
)
"""The words of those errors, in lower case."""
_OURS = ("cuda error", "cuda driver error", "cudnn", "cublas", "nccl", "acceleratorerror", "hip error")
"""One of these is in the words of every error of a device, so that a model's own words are not taken for one."""
_FULL = ("cuda out of memory", "cuda error: out of memory", "cublas_status_alloc_failed", "not enough memory")


def is_sticky(error: BaseException) -> bool:
    """Whether only a new process can use the device again."""
    words = f"{type(error).__name__}: {error}".lower()
    return isinstance(error, RuntimeError) and any(o in words for o in _OURS) and any(s in words for s in _STICKY)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the batch was too large for the device's memory, or the host's."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _FULL)


def meaning(error: Exception) -> Exception:
    """`DeviceLost` or `OutOfMemory` where it is one of those, else the error itself."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if is_sticky(error):
        return DeviceLost(first)
    return OutOfMemory(first) if is_out_of_memory(error) else error


def told(forward: Callable[[_Model, _Batch], _Rows]) -> Callable[[_Model, _Batch], _Rows]:
    """A model's forward that raises what its errors mean; outside of `except`, since a traceback keeps tensors."""

    @functools.wraps(forward)
    def wrapped(self: _Model, batch: _Batch) -> _Rows:
        try:
            return forward(self, batch)
        except Exception as error:  # told apart below; what means nothing else goes on as it is
            found = meaning(error)
            if found is error:
                raise
        raise found

    return wrapped
