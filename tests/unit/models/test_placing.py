"""Where threads run in a process whose computing threads OpenMP binds."""

import os
import subprocess
import sys

import pytest

from embedfleet_server import environment

pytestmark = [
    pytest.mark.requirement("N1"),
    pytest.mark.skipif(
        not environment.can_bind() or environment.cores() < 2, reason="hardware: one core, or nothing is bound here"
    ),
]
PROGRAM = """
import os
from concurrent.futures import ThreadPoolExecutor

def loads(frees):
    import torch
    from embedfleet_server.models.placing import free
    torch.set_num_threads(len(os.sched_getaffinity(os.getpid())))
    if frees:
        free()
    torch.ones(2**20).mul_(2)
    return len(os.sched_getaffinity(0))

for frees in (True, True, False):
    with ThreadPoolExecutor(1) as thread:
        print(thread.submit(loads, frees).result())
"""


def test_a_thread_that_was_freed_stays_free() -> None:
    """The one that imports torch and a later one; a third, which is not freed, is bound when it computes."""
    environ = os.environ | {"OMP_PLACES": "cores", "OMP_PROC_BIND": "true"}
    ran = subprocess.run([sys.executable, "-c", PROGRAM], env=environ, capture_output=True, text=True, check=True)
    importing, later, bound = map(int, ran.stdout.split())
    assert (importing, later) == (environment.cores(), environment.cores())
    assert bound < importing or environment.cores() == 2  # which may be two threads of one core
