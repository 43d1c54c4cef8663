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
GROWTH = 1.5
"""A long wait that is so many times the usual one says that the queue grows: as good as a refusal."""
_WEIGHT = 1 / 8  # of the newest wait in the usual one, as TCP smooths its round trips


@dataclass(slots=True)
class Place:
    """A request's place in the gate; `epoch` is the congestion it was sent under."""

    inputs: int
    epoch: int
    held: bool = True
    first: bool = False
    """Whether it was sent before a whole limit of requests was answered since nothing was in flight."""


@dataclass(slots=True, eq=False)
class _Waiter:
    inputs: int
    turn: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Gate:
    """At most `limit` requests and `room` inputs in flight; first come, first served; `most` caps the limit.

    The limit rises by one for each `limit` answers. It halves, once per congestion, when the server refuses and when
    requests wait there ever longer. What begins at once waits for itself: the first requests tell how long waits are,
    and only those sent once as many were answered whether they grow.
    """

    def __init__(self, limit: int = FIRST_LIMIT, room: int | None = None, most: int | None = None) -> None:
        self.limit = float(limit)
        self.room = room
        self.most = HIGHEST_LIMIT if most is None else most
        self.requests = 0
        self.inputs = 0
        self.last_answer: float | None = None
        self._epoch = 0
        self._usual = 0.0
        self._told = 0  # answers that told their wait since nothing was in flight
        self._returning: deque[_Waiter] = deque()
        self._waiting: deque[_Waiter] = deque()

    async def enter(self, inputs: int) -> Place:
        """A place for a request of so many inputs, kept until `leave`, retries and their waits included."""
        await self._turn(inputs, self._waiting)
        return Place(inputs, self._epoch)

    def leave(self, place: Place) -> None:
        """Give the place to the next; one that is left already stays so."""
        if place.held:
            place.held = False
            self._give_back(place.inputs)

    async def back(self, place: Place) -> None:
        """Take a place that was left again, before all that never had one; one without inputs never was one."""
        if not place.held and place.inputs:
            await self._turn(place.inputs, self._returning)
            place.held = True

    def sent(self, place: Place) -> None:
        """The request of `place` goes out now."""
        place.epoch = self._epoch
        place.first = self._told < int(self.limit)

    def answered(self, now: float, queue_seconds: float | None = None, place: Place | None = None) -> None:
        """The request of `place` was answered at `now` after so long in the server's queue; None: it did not say."""
        self.last_answer = now
        waited = queue_seconds or 0.0
        if waited < LONG_QUEUE_SECONDS:
            self.limit = min(self.most, self.limit + 1 / self.limit)
        elif place is not None and not place.first and waited > GROWTH * self._usual:
            self.refused(place)
        if place is not None and queue_seconds is not None:
            self._learn(queue_seconds, is_first=place.first)
        self._admit()

    def refused(self, place: Place) -> None:
        """The server would not take the request of `place`."""
        if place.epoch == self._epoch:
            self.limit = max(1.0, self.limit / 2)
            self._epoch += 1

    def restart(self) -> None:
        """The server was away and is back: begin with one request, so that not all return at once."""
        self.limit = 1.0
        self._epoch += 1

    def _learn(self, queue_seconds: float, *, is_first: bool) -> None:
        """What a usual wait is: the longest of the first, and from then on an average that follows."""
        if is_first:
            self._usual = max(queue_seconds, self._usual if self._told else 0.0)
        else:
            self._usual += _WEIGHT * (queue_seconds - self._usual)
        self._told += 1

    def _fits(self, inputs: int) -> bool:
        if self.requests == 0:
            return True
        return self.requests < int(self.limit) and (self.room is None or self.inputs + inputs <= self.room)

    async def _turn(self, inputs: int, line: deque[_Waiter]) -> None:
        if not self._returning and (line is self._returning or not self._waiting) and self._fits(inputs):
            self._take(inputs)
            return
        waiter = _Waiter(inputs)
        line.append(waiter)
        try:
            await waiter.turn
        except asyncio.CancelledError:
            self._forget(waiter, line)
            raise

    def _forget(self, waiter: _Waiter, line: deque[_Waiter]) -> None:
        if waiter.turn.done() and not waiter.turn.cancelled():
            self._give_back(waiter.inputs)  # the turn came in the very moment of the cancel
        elif waiter in line:
            line.remove(waiter)
            self._admit()

    def _take(self, inputs: int) -> None:
        self.requests += 1
        self.inputs += inputs

    def _give_back(self, inputs: int) -> None:
        self.requests -= 1
        self.inputs -= inputs
        self._told = self._told if self.requests else 0
        self._admit()

    def _admit(self) -> None:
        while (line := self._returning or self._waiting) and self._fits(line[0].inputs):
            waiter = line.popleft()
            if not waiter.turn.done():
                self._take(waiter.inputs)
                waiter.turn.set_result(None)
