"""How many requests a client has in flight: follows what the server takes, like TCP's window.

One gate per client, whichever calls and threads the requests come from: ten thousand calls at once wait here, in
order, and not at the server's door.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field

FIRST_LIMIT = 4
HIGHEST_LIMIT = 256
LONG_QUEUE_SECONDS = 0.5
"""An answer that waited longer than this at the server says that more in flight would only wait longer."""


@dataclass(slots=True)
class Place:
    """A request's place in the gate; `epoch` is the congestion it was sent under."""

    inputs: int
    epoch: int


@dataclass(slots=True, eq=False)
class _Waiter:
    inputs: int
    turn: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Gate:
    """At most `limit` requests and `room` inputs in flight; first come, first served; `most` caps the limit.

    The limit rises by one for each `limit` answers and halves when the server refuses, once per congestion.
    """

    def __init__(self, limit: int = FIRST_LIMIT, room: int | None = None, most: int | None = None) -> None:
        self.limit = float(limit)
        self.room = room
        self.most = HIGHEST_LIMIT if most is None else most
        self.requests = 0
        self.inputs = 0
        self.last_answer: float | None = None
        self._epoch = 0
        self._waiting: deque[_Waiter] = deque()

    async def enter(self, inputs: int) -> Place:
        """A place for a request of so many inputs, kept until `leave`, retries and their waits included."""
        await self._turn(inputs)
        return Place(inputs, self._epoch)

    def leave(self, place: Place) -> None:
        """Give the place to the next."""
        self._give_back(place.inputs)

    def sent(self, place: Place) -> None:
        """The request of `place` goes out now."""
        place.epoch = self._epoch

    def answered(self, now: float, queue_seconds: float = 0.0) -> None:
        """A request was answered at `now` after so long in the server's queue."""
        self.last_answer = now
        if queue_seconds < LONG_QUEUE_SECONDS:
            self.limit = min(self.most, self.limit + 1 / self.limit)
        self._admit()

    def refused(self, place: Place) -> None:
        """The server would not take the request of `place`."""
        if place.epoch == self._epoch:
            self.limit = max(1.0, self.limit / 2)
            self._epoch += 1

    def _fits(self, inputs: int) -> bool:
        if self.requests == 0:
            return True
        return self.requests < int(self.limit) and (self.room is None or self.inputs + inputs <= self.room)

    async def _turn(self, inputs: int) -> None:
        if not self._waiting and self._fits(inputs):
            self._take(inputs)
            return
        waiter = _Waiter(inputs)
        self._waiting.append(waiter)
        try:
            await waiter.turn
        except asyncio.CancelledError:
            self._forget(waiter)
            raise

    def _forget(self, waiter: _Waiter) -> None:
        if waiter.turn.done() and not waiter.turn.cancelled():
            self._give_back(waiter.inputs)  # the turn came in the very moment of the cancel
        elif waiter in self._waiting:
            self._waiting.remove(waiter)
            self._admit()

    def _take(self, inputs: int) -> None:
        self.requests += 1
        self.inputs += inputs

    def _give_back(self, inputs: int) -> None:
        self.requests -= 1
        self.inputs -= inputs
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._fits(self._waiting[0].inputs):
            waiter = self._waiting.popleft()
            if not waiter.turn.done():
                self._take(waiter.inputs)
                waiter.turn.set_result(None)
