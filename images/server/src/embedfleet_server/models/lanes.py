"""Rows of a batch side by side on a CPU: each is computed by one thread from end to end.

Where all threads compute one row, they wait for each other at the end of every step, and most when another process
takes one of the cores for a moment; what is done by one of them alone leaves the others idle. Two rows on two cores
took 0.76 to 0.89 of the time (decision 0021). Small batches, and those that cannot be parted evenly, are computed by
all. Whether it is faster here is tried with each model.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache, partial
from time import perf_counter
from typing import Protocol, TypeVar, runtime_checkable

import torch

from embedfleet_server.engine.thread_names import name_thread
from embedfleet_server.models.timing import Clock, shortest

Part = TypeVar("Part")
Made = TypeVar("Made")
_NAME = "device lane"  # as other threads that compute begin with
_TRIES = 6
_ENOUGH_SECONDS = 1.0  # of a trial; MiniLM takes about 0.1 a try
_WORTH_IT = 0.95  # of the time of all threads on a row: less gain could be noise
_CHANGING = ("dynamic", "longrope")
"""Kinds of rotary embeddings that keep what the last row needed: rows side by side would take each other's."""


class Lanes:
    """Threads in which torch computes with one thread each."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=_NAME)
        self._start()

    def map(self, function: Callable[[Part], Made], parts: Sequence[Part]) -> list[Made]:
        """What the function makes of each part; what it raises is raised when no part is computed any more."""
        made = [self._pool.submit(function, part) for part in parts]
        wait(made)
        return [each.result() for each in made]

    def _start(self) -> None:
        """Torch keeps the number for each thread, and the last one for threads to come: that is put back."""
        before = torch.get_num_threads()
        started = threading.Barrier(self.count)
        wait([self._pool.submit(_alone, started) for _ in range(self.count)])
        torch.set_num_threads(before)


def _alone(started: threading.Barrier) -> None:
    name_thread(_NAME)
    torch.get_num_threads()  # else the thread's first operation sets its number to the one of threads to come
    torch.set_num_threads(1)
    started.wait()


@runtime_checkable
class UsesLanes(Protocol):
    """A model whose rows may be computed on lanes."""

    def try_lanes(self, found: Lanes | None) -> float | None:
        """Use them where that takes less time; its share of the time, None where they cannot be used."""


_ONE_AT_A_TIME = threading.Lock()
_of = cache(Lanes)


def shared() -> Lanes | None:
    """As many as torch computes with in this thread, the same for all models; None where that is one."""
    count = torch.get_num_threads()
    with _ONE_AT_A_TIME:
        return _of(count) if count > 1 else None


def can(module: torch.nn.Module) -> bool:
    """Whether a module may compute several rows at a time: none of its parts keeps what it needs for one."""
    kinds = [str(getattr(part, "rope_type", "")) for part in module.modules()]
    return not any(changing in kind for kind in kinds for changing in _CHANGING)


def share(lanes: Lanes, compute: Callable[[Part], object], part: Part, clock: Clock = perf_counter) -> float:
    """The time of so many parts side by side, of that of all threads on one after the other.

    By the time of day, which is what waiting takes; the shortest of a few tries, by turns.
    """
    parts = [part] * lanes.count
    side, whole = partial(lanes.map, compute, parts), partial(_by_all, compute, parts)
    for form in (side, whole):  # the first call makes what others find
        form()
    beside, one = shortest([side, whole], _TRIES, clock, enough=_ENOUGH_SECONDS)
    return beside / one


def _by_all(compute: Callable[[Part], object], parts: Sequence[Part]) -> None:
    for part in parts:
        compute(part)


def is_worth_it(share: float) -> bool:
    """Whether so much of the time is clearly less."""
    return share < _WORTH_IT
