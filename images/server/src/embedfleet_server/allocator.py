"""How the C library's allocator gives memory back to the system: not what the next forward takes again at once.

By itself glibc gives freed blocks back once they are more than twice the largest one. A forward takes and frees tens of
MiB for each of its layers: their pages are then found missing, and made zero, over and over (decision 0015).
"""

import ctypes
from collections.abc import Mapping

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
_LARGEST_BLOCK = 32 * 2**20  # bytes; the most that glibc takes for M_MMAP_THRESHOLD
_KEPT = 128 * 2**20  # bytes
_SAID = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")
"""Variables by which the user has decided; glibc reads them as a process starts."""


def keep_freed(environ: Mapping[str, str]) -> bool:
    """Blocks of up to 32 MiB are kept for reuse. False where the user has decided, or the C library is another."""
    if any(name in environ for name in _SAID):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK)) and bool(mallopt(_TRIM_THRESHOLD, _KEPT))
