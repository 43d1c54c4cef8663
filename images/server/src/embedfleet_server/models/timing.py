"""How long work takes: the shortest of a few runs, each alternative by turns.

The clock is the processor time of the calling thread: on a machine where other work takes the cores away, the time of
day says little about what is faster (a forward of 10 ms took 150 there). Torch's work is divided evenly among its
threads, of which the calling one is one, so that its share shows what all take.
"""

import math
import time
from collections.abc import Callable, Sequence

Clock = Callable[[], float]
CLOCK: Clock = time.thread_time
_ENOUGH_SECONDS = 0.3  # of measuring: a large model shows in one try which form is faster


def shortest(
    work: Sequence[Callable[[], object]], tries: int, clock: Clock = CLOCK, *, enough: float = _ENOUGH_SECONDS
) -> list[float]:
    """The shortest time of each, tried by turns, so that other work on the machine meets all alike.

    After `enough` seconds no further turn begins.
    """
    best = [math.inf] * len(work)
    began = clock()
    for _ in range(tries):
        for index, each in enumerate(work):
            before = clock()
            each()
            best[index] = min(best[index], clock() - before)
        if clock() - began > enough:
            break
    return best
