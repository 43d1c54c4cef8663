"""What the C library does with memory that was freed."""

import os
import subprocess
import sys

import pytest

from embedfleet_server.allocator import keep_freed

pytestmark = pytest.mark.requirement("N1")
_PROGRAM = """
import os, resource, sys
import numpy as np
from embedfleet_server.allocator import keep_freed

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        [np.full(2**21, 1.0) for _ in range(4)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if "keep" in sys.argv:
    assert keep_freed(os.environ)
faults()
print(faults())
"""
_PAGES = 2**24 // os.sysconf("SC_PAGE_SIZE")
"""Of a block of 16 MiB, as a forward's largest."""


def faults(*arguments: str) -> int:
    """Pages found missing while four blocks of 16 MiB are taken, and freed together, ten times in a new process."""
    environ = os.environ | {"NUMPY_MADVISE_HUGEPAGE": "0"}  # huge pages would be counted as one
    command = [sys.executable, "-c", _PROGRAM, *arguments]
    return int(subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_blocks_are_reused() -> None:
    """Kept blocks are taken again without a page missing; by itself the library gives them back each time."""
    assert faults("keep") < _PAGES
    assert faults() > 10 * _PAGES


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"])
def test_the_users_word_wins(name: str) -> None:
    """Where the environment says how memory is given back, nothing is changed."""
    assert not keep_freed({name: "1"})
