"""How a server lives and leaves: a pure table of transitions; whoever owns the signals feeds it.

Once a drain has begun nothing undoes or hurries it: a second signal changes nothing.
"""

from collections.abc import Mapping
from enum import Enum

from embedfleet_server.engine.errors import ShuttingDown

_ELSEWHERE = 1.0  # seconds: long enough for a client to reach another replica, or this one's successor


class State(Enum):
    """SERVING: takes requests. CLOSING: refuses new ones, finishes accepted ones. EXIT: nothing is left to do."""

    SERVING = "Serving"
    CLOSING = "Closing"
    EXIT = "Exit"


class Event(Enum):
    """STOP: a signal asks the server to leave. DRAINED: everything accepted is answered, or its time is up."""

    STOP = "stop"
    DRAINED = "drained"


TRANSITIONS: Mapping[tuple[State, Event], State] = {
    (State.SERVING, Event.STOP): State.CLOSING,
    (State.CLOSING, Event.STOP): State.CLOSING,
    (State.CLOSING, Event.DRAINED): State.EXIT,
    (State.EXIT, Event.STOP): State.EXIT,
}


class Lifecycle:
    """The state a server is in."""

    def __init__(self) -> None:
        self._state = State.SERVING

    @property
    def state(self) -> State:
        """Where the server stands."""
        return self._state

    @property
    def is_closing(self) -> bool:
        """New requests are refused and clients told to leave."""
        return self._state is not State.SERVING

    def on(self, event: Event) -> bool:
        """Take `event`; returns whether the state changed. An event with no place in the table is a bug."""
        following = TRANSITIONS.get((self._state, event))
        if following is None:
            raise AssertionError(f"This is a bug: {event.value} while {self._state.value}")
        changed, self._state = following is not self._state, following
        return changed

    def check_open(self) -> None:
        """Raises `ShuttingDown` unless requests are taken."""
        if self.is_closing:
            raise ShuttingDown("the server is shutting down; nothing was accepted", _ELSEWHERE)
