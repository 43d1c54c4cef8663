"""Garbage collection between batches rather than within them.

What a loaded model consists of is frozen: the collector need not look at it again. From then on nothing is collected
by itself; after a batch, once enough objects were made, the young are collected, and now and then all that is left.
"""

import gc
from collections.abc import Callable

from embedfleet_server.engine.observer import BatchRecord, Observer

_YOUNG = 20_000  # objects made since; to look at so many took 0.6 ms, 5 ms where all of them were garbage
_WHOLE = 50  # young collections to one of all that is not frozen; with torch loaded and nothing frozen it took 600 ms


class Collecting(Observer):
    """Collects for a process that serves; `collect` and `count` are gc's own."""

    def __init__(self, collect: Callable[[int], int] = gc.collect, count: Callable[[], int] | None = None) -> None:
        self._collect = collect
        self._count = count or _made
        self._young = 0

    def start(self) -> None:
        """Nothing is collected by itself any more."""
        gc.disable()

    def loaded(self, model: str) -> None:
        """A model is there: clean up after its loading, and never look at what is left again."""
        self._collect(2)
        gc.freeze()

    def batch(self, record: BatchRecord) -> None:
        """A batch has ended, the next has not come back yet."""
        self.between()

    def between(self) -> None:
        """Collect if enough has come together."""
        if self._count() < _YOUNG:
            return
        self._young += 1
        self._collect(2 if self._young % _WHOLE == 0 else 0)

    def stop(self) -> None:
        """As before."""
        gc.unfreeze()
        gc.enable()


def _made() -> int:
    """Objects made and not freed since the last collection."""
    return gc.get_count()[0]
