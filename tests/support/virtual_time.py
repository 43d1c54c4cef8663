"""An event loop whose clock jumps to the next timer instead of waiting for it: an hour of waiting takes no time.

A loop with nothing left to do raises instead of hanging, so a lost wake-up is a failing test.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_KERNEL_SECONDS = 0.05  # loopback delivers at once; a busy kernel may leave it to a thread of its own


class Deadlock(AssertionError):
    """Every task waits and no timer is set."""


class _JumpingSelector(selectors.SelectSelector):
    """A wait for a timer is an advance of the clock, once nothing has come for `patience` real seconds."""

    def __init__(self, patience: float) -> None:
        super().__init__()
        self.now, self._patience = 0.0, patience

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0) or (super().select(self._patience) if self._patience and timeout != 0 else [])
        if not events and timeout is None:
            raise Deadlock("every task waits and no timer is set")
        if not events and timeout:
            self.now += timeout
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop; its time starts at 0."""

    def __init__(self, patience: float = 0.0) -> None:
        self._virtual = _JumpingSelector(patience)
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` on a virtual clock."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def run_with_sockets(main: Coroutine[Any, Any, T]) -> T:
    """The same for real sockets both ends of which are on this loop: what the kernel holds back for a moment comes."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(_KERNEL_SECONDS)) as runner:
        return runner.run(main)
