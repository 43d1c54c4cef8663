"""What a model may raise from a forward, and what each kind of failure asks for.

TransientError     the fault may pass: the same batch is tried again after a back-off (OSError, TimeoutError too)
OutOfMemory        too large for the device: halves are tried, and batches stay smaller for a while
DeviceLost         (see errors) nothing more can be computed: nothing is tried again, and the process ends
anything else      will not pass: halves are tried until the input at fault is alone
"""

from collections.abc import Callable

from embedfleet_server.batching.types import Fault
from embedfleet_server.engine.raised import OutOfMemory, TransientError

__all__ = ["MayPass", "OutOfMemory", "TransientError", "classify"]


MayPass = Callable[[BaseException], bool]


def classify(error: BaseException, may_pass: MayPass | None = None) -> Fault:
    """The kind of a failure; `may_pass` says of further exceptions that they may pass."""
    if isinstance(error, OutOfMemory | MemoryError):
        return Fault.MEMORY
    if isinstance(error, TransientError | OSError | TimeoutError) or (may_pass is not None and may_pass(error)):
        return Fault.TRANSIENT
    return Fault.PERMANENT
