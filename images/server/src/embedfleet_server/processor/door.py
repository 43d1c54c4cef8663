"""Where threads hand requests to the loop: the bound, who waits for room, and the box that the loop empties.

All of it under one lock, so that a request that is taken reaches the loop, and one that is refused leaves no trace.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from embedfleet_server.batching.admission import Load, admit, is_full
from embedfleet_server.batching.types import Bound
from embedfleet_server.engine.errors import QueueFull, ShuttingDown, TooLarge
from embedfleet_server.processor.request import Request

Place = Future[None]
"""Done when the request that waits for it has been taken."""


class Door:
    """Takes requests from any thread; `wake` tells the loop that there is something in the box."""

    def __init__(self, places: int, wake: Callable[[], None]) -> None:
        """`places`: most items waiting at once. `wake` must be callable from any thread."""
        self._bound = Bound(places)
        self._wake = wake
        self._lock = threading.Lock()
        self._load = Load()  # `inputs` wait in the core, `reserved` in the box
        self.retry_after = 1.0
        """Seconds until what waits will have been computed, as far as is known."""
        self._box: list[Request] = []
        self._cancelled: list[Request] = []
        self._lined_up: deque[tuple[Place, Request]] = deque()
        self._is_woken = self.is_closed = False

    def enter(self, request: Request) -> None:
        """Take it, or raise `QueueFull`, `TooLarge` or `ShuttingDown`."""
        with self._lock:
            self._raise_closed()
            refusal = admit(((self._bound, self._load),), request.size, 0, self.retry_after)
            if refusal is None:
                self._put(request)
            elif refusal.retry_after is None:
                raise TooLarge(refusal.reason)
            else:
                raise QueueFull(refusal.reason, refusal.retry_after)

    def line_up(self, request: Request) -> Place:
        """Take it now, or as soon as there is room for it and for those before it; `leave_line` ends the wait."""
        place: Place = Future()
        with self._lock:
            self._raise_closed()
            if request.size > (self._bound.inputs or 0):
                raise TooLarge(f"{request.size} items in one request; at most {self._bound.inputs} fit")
            self._lined_up.append((place, request))
            entered = self._admit_line()
        _tell(entered)
        return place

    def leave_line(self, place: Place) -> bool:
        """Wait no longer; False when the request was taken at this very moment."""
        with self._lock:
            has_left = place.cancel()
            entered = self._admit_line() if has_left else []
        _tell(entered)
        return has_left

    def cancelled(self, request: Request) -> None:
        """A Future was cancelled by whoever holds it."""
        with self._lock:
            if not request.is_settled:
                self._cancelled.append(request)
                self._wake_once()

    def close(self) -> None:
        """Refuse from now on; whoever waits for room is told."""
        with self._lock:
            self.is_closed = True
            left, self._lined_up = self._lined_up, deque()
        for place, _ in left:
            if place.set_running_or_notify_cancel():
                place.set_exception(_closed())

    def empty(self) -> tuple[list[Request], list[Request]]:
        """For the loop: what came, and what was cancelled. `waiting` must follow once the core has it."""
        with self._lock:
            self._is_woken = False
            came, self._box = self._box, []
            cancelled, self._cancelled = self._cancelled, []
            moved = sum(request.size for request in came)
            self._load.reserved -= moved
            self._load.inputs += moved
        return came, cancelled

    def waiting(self, inputs: int, retry_after: float) -> None:
        """For the loop: so many items wait in the core, for about so many seconds; whoever has room now enters."""
        with self._lock:
            self._load.inputs, self.retry_after = inputs, retry_after
            entered = self._admit_line() if self._lined_up else []
        _tell(entered)

    @property
    def depth(self) -> int:
        """Items waiting, in the box or in the core."""
        with self._lock:
            return self._load.inputs + self._load.reserved

    # Inside; the lock is held.

    def _raise_closed(self) -> None:
        if self.is_closed:
            raise _closed()

    def _admit_line(self) -> list[Place]:
        """Take requests in the order in which they wait, until one does not fit; the places to be told."""
        entered = []
        while self._lined_up:
            place, request = self._lined_up[0]
            if not place.cancelled():
                if is_full(self._bound, self._load, request.size, 0):
                    break
                place.set_running_or_notify_cancel()
                self._put(request)
                entered.append(place)
            self._lined_up.popleft()
        return entered

    def _put(self, request: Request) -> None:
        self._load.reserved += request.size
        request.on_cancel = self.cancelled
        self._box.append(request)
        self._wake_once()

    def _wake_once(self) -> None:
        if not self._is_woken:
            self._is_woken = True
            self._wake()


def _tell(entered: list[Place]) -> None:
    """Outside the lock: a callback may come back to this door."""
    for place in entered:
        place.set_result(None)


def _closed() -> ShuttingDown:
    return ShuttingDown("the BatchProcessor is stopped, or stopping: it takes no more items")
