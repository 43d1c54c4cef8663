"""Answers that their client does not read: how long they are kept for it.

What the kernel does not take stays in the server's memory, and its writer waits. A client that asks for much and reads
nothing would hold both for ever, since nothing of TCP ends a connection whose other end is there.
"""

import asyncio
from dataclasses import dataclass

from embedfleet_server.config import Limits


@dataclass(frozen=True, slots=True)
class Unsent:
    """So many bytes were not taken at a time, in seconds."""

    size: int
    at: float


def is_given_up(before: Unsent, now: Unsent, limits: Limits) -> bool:
    """Whether too little was taken since `before`. While it is watched next to nothing is added: the writer waits."""
    return before.size - now.size < limits.answer_bytes_per_second * (now.at - before.at)


class Unread:
    """Watches what one connection has not sent."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, limits: Limits) -> None:
        self._transport, self._loop, self._limits = transport, loop, limits
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Look after it, unless that is done, until all is sent or the client is cut off."""
        if self._timer is None:
            self._look_after(self._unsent())

    def stop(self) -> None:
        """The connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_after(self, seen: Unsent) -> None:
        self._timer = None
        if seen.size:
            self._timer = self._loop.call_later(self._limits.answer_silence_seconds, self._look, seen)

    def _look(self, before: Unsent) -> None:
        now = self._unsent()
        if now.size and is_given_up(before, now, self._limits):
            self._timer = None
            self._transport.abort()
        else:
            self._look_after(now)

    def _unsent(self) -> Unsent:
        return Unsent(self._transport.get_write_buffer_size(), self._loop.time())
