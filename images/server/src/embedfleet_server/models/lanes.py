"""Rows of a batch side by side on a CPU: each is computed by one thread from end to end.

Where all threads compute one row, they wait for each other at the end of every step, and most when another process
takes one of the cores for a moment; what is done by one of them alone leaves the others idle. Two rows on two cores
took 0.76 to 0.89 of the time (decision 0021). Small batches, and those that cannot be parted evenly, are computed by
all. Whether it is faster here is tried with each model.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache, partial
from math import inf
from time import monotonic, perf_counter
from typing import Generic, Protocol, TypeVar, runtime_checkable

import torch

from embedfleet_server.engine.thread_names import LANE, name_thread
from embedfleet_server.environment import run_anywhere
from embedfleet_server.models.layout import LEAST
from embedfleet_server.models.linear import multiplications
from embedfleet_server.models.timing import Clock, shortest

Part = TypeVar("Part")
Made = TypeVar("Made")
_START_SECONDS = 10.0  # for threads to begin; they may not wait for ever for one that the system refuses
_TRIES = 6
_ENOUGH_SECONDS = 1.0  # of a trial; MiniLM takes about 0.4 a try
_TOKENS, _WORK = 512, 2**35
"""Tokens of a lane in a trial, and multiplications, which bound them: one second of a core. With MiniLM on a Zen 3
eight trials gave 0.29 to 0.85 with 512, and 0.84 to 1.02 with 256, where noise decided."""
_LARGEST = 2**29
"""Multiplications for a token, above which nothing is tried: that would take more than 4 s of each load on two cores
of a Zen 3, at 0.14 TFLOP/s."""
_WORTH_IT = 1.1
"""Of the time of all threads on a row. While a server serves, its other threads and its clients take cores away, which
a trial at load does not see: trials said 0.79 to 1.08, and lanes took 0.81 to 0.94 at saturation (decision 0021)."""
_CHANGING = ("dynamic", "longrope")
"""Kinds of rotary embeddings that keep what the last row needed: rows side by side would take each other's."""


class Lanes:
    """Threads in which torch computes with one thread each."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=LANE)
        self._changed = threading.Condition()
        self._given = 0  # parts that wait or are computed
        self._start()

    def map(self, function: Callable[[Part], Made], parts: Sequence[Part]) -> list[Made]:
        """What the function makes of each part; what it raises is raised when no part is computed any more."""
        return Begun(function, parts, self._pool.submit)()

    def begin(self, function: Callable[[Part], Made], parts: Sequence[Part]) -> "Begun[Made]":
        """The same, waited for when it is called. Parts are begun in their order."""
        return Begun(function, parts, self._counted)

    def settle(self) -> None:
        """Wait until nothing is under way that was begun; who maps waits for that alone."""
        with self._changed:
            self._changed.wait_for(lambda: not self._given)

    def _counted(self, function: Callable[[Part], Made], part: Part) -> Future[Made]:
        with self._changed:
            self._given += 1
        try:
            under_way = self._pool.submit(function, part)
        except BaseException:
            self._done()
            raise
        under_way.add_done_callback(self._done)
        return under_way

    def _done(self, _: object = None) -> None:
        with self._changed:
            self._given -= 1
            self._changed.notify_all()

    def _start(self) -> None:
        """Torch keeps the number for each thread, and the last one for threads to come: that is put back."""
        before = torch.get_num_threads()
        started = threading.Barrier(self.count)
        try:
            for lane in [self._pool.submit(_alone, started) for _ in range(self.count)]:
                lane.result(_START_SECONDS)
        except BaseException:
            started.abort()
            self._pool.shutdown(wait=False)
            raise
        finally:
            torch.set_num_threads(before)


class Begun(Generic[Made]):
    """Parts that lanes compute; called once, maybe in another thread, it waits for what they make."""

    def __init__(
        self,
        function: Callable[[Part], Made],
        parts: Sequence[Part],
        submit: Callable[[Callable[[Part], Made], Part], Future[Made]],
    ) -> None:
        self.ended = -inf
        """When the last part ended, on asyncio's clock; once they were waited for."""
        self._under_way = [submit(partial(self._computed, function), part) for part in parts]

    def __call__(self) -> list[Made]:
        """In the order of the parts."""
        under_way, self._under_way = self._under_way[::-1], []  # frames of the parts' tracebacks keep this object
        wait(under_way)
        found: list[Made] = []
        while under_way:  # what fails is in no list of this frame, which its traceback keeps, and arrays with it
            found.append(under_way.pop().result())
        return found

    def _computed(self, function: Callable[[Part], Made], part: Part) -> Made:
        try:
            return function(part)
        finally:
            self.ended = monotonic()


def _alone(started: threading.Barrier) -> None:
    name_thread(LANE)
    run_anywhere()  # the thread that starts this one may be bound
    torch.get_num_threads()  # else the thread's first operation sets its number to the one of threads to come
    torch.set_num_threads(1)
    started.wait(_START_SECONDS)


@runtime_checkable
class UsesLanes(Protocol):
    """A model whose rows may be computed on lanes."""

    def try_lanes(self, found: Lanes | None) -> float | None:
        """Use them unless that takes clearly longer; its share of the time, None where it cannot."""


_ONE_AT_A_TIME, _ONE_TRIAL = threading.Lock(), threading.Lock()
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


def trial(module: torch.nn.Module) -> int:
    """Tokens of each lane in a trial; 0 for a model that is too large to be tried at each load."""
    work = multiplications(module)
    if work > _LARGEST:
        return 0
    return max(LEAST, min(_TOKENS, _WORK // work))


def share(
    on: Lanes,
    compute: Callable[[Part], object],
    side: Sequence[Part],
    whole: Sequence[Part],
    clock: Clock = perf_counter,
) -> float:
    """The time of a batch in parts that are computed side by side, of that in those of all threads.

    By the time of day, which is what waiting takes; the shortest of a few tries, by turns. Models are tried one by one.
    """
    forms: list[Callable[[], object]] = [partial(on.map, compute, side), partial(_by_all, compute, whole)]
    with _ONE_TRIAL:
        beside, one = shortest(forms, 1, clock)  # the first calls make what others find
        if beside + one < _ENOUGH_SECONDS:
            beside, one = shortest(forms, _TRIES, clock, enough=_ENOUGH_SECONDS)
    return beside / one


def _by_all(compute: Callable[[Part], object], parts: Sequence[Part]) -> None:
    for part in parts:
        compute(part)


def is_worth_it(share: float) -> bool:
    """Whether a batch that takes so much of the time in a trial takes less while a server serves."""
    return share < _WORTH_IT
