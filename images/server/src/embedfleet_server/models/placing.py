"""Where threads run that do not compute batches, in a process whose computing threads OpenMP binds to cores."""

import torch

from embedfleet_server.environment import run_anywhere

_PARTED = 2**17  # elements: several times what torch leaves to one thread (32,768, at::internal::GRAIN_SIZE)


def free() -> None:
    """Let this thread, which loads a model, and those it starts run anywhere.

    OpenMP binds a thread that imports it, and each when it first computes together with others; never again after that
    (libgomp's `gomp_team_start` asks whether the thread has a place). So it does that here first.
    """
    torch.zeros(_PARTED).add_(1)
    run_anywhere()
