"""Names of threads as the system shows them (`top -H`, `ps -L`): who uses the processor is seen from outside."""

import contextlib
import threading
from pathlib import Path

LANE = "device lane"
"""Of threads that compute for a device's own, while one waits for them; else they are idle, or end soon."""
_LONGEST = 15  # bytes that Linux keeps of a name (TASK_COMM_LEN, the end mark taken off)


def name_thread(name: str) -> None:
    """Name the calling thread, and with it the workers that it starts from now on; elsewhere than on Linux nothing.

    Python gives threads a name of its own alone up to 3.13.
    """
    with contextlib.suppress(OSError):
        comm = Path(f"/proc/self/task/{threading.get_native_id()}/comm")
        comm.write_bytes(name.encode()[:_LONGEST])
