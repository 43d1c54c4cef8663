"""SIGTERM and SIGINT, owned from the first instruction to the last: neither ever aborts a drain.

Handlers of `signal.signal` and not of the event loop, which puts the system's own back when it closes: a second signal
would then kill the process between its last answer and its exit.
"""

import asyncio
import logging
import signal
from types import FrameType

_log = logging.getLogger(__name__)
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignal:
    """Tells one event loop that a signal came, whenever it came."""

    def __init__(self) -> None:
        self._seen = False
        self._waiting: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def install(self) -> None:
        """Take both signals; main thread only."""
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    async def wait(self) -> None:
        """Returns once a signal has come, be it before this call."""
        event = asyncio.Event()
        self._waiting = asyncio.get_running_loop(), event
        if not self._seen:
            await event.wait()

    def ignore(self) -> None:
        """From now on signals do nothing, not even during the interpreter's own end."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def ask(self) -> None:
        """Stop as a signal would; a second time changes nothing."""
        if self._seen:
            return
        self._seen = True
        if self._waiting is not None:
            loop, event = self._waiting
            loop.call_soon_threadsafe(event.set)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self.ask()
