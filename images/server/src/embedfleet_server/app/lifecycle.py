"""How a server lives and leaves: a pure table of transitions; whoever owns the signals feeds it.

Once a drain has begun nothing undoes or hurries it: a second signal changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from embedfleet_server.engine.errors import ShuttingDown

_ELSEWHERE = 1.0  # seconds: long enough for a client to reach another replica, or this one's successor


class State(Enum):
    """How far a server is on its way.

    SERVING: takes requests. LAME_DUCK: takes them still, and tells each client to leave. CLOSING: refuses new ones,
    finishes accepted ones. EXIT: nothing is left to do.
    """

    SERVING = "Serving"
    LAME_DUCK = "LameDuck"
    CLOSING = "Closing"
    EXIT = "Exit"


class Event(Enum):
    """STOP: a signal, or the hook, asks the server to leave. ALONE: no client is to be expected any more, or the time
    for that is up. DRAINED: everything accepted is answered, or its time is up.
    """

    STOP = "stop"
    ALONE = "alone"
    DRAINED = "drained"


TRANSITIONS: Mapping[tuple[State, Event], State] = {
    (State.SERVING, Event.STOP): State.LAME_DUCK,
    (State.LAME_DUCK, Event.STOP): State.LAME_DUCK,
    (State.LAME_DUCK, Event.ALONE): State.CLOSING,
    (State.CLOSING, Event.STOP): State.CLOSING,
    (State.CLOSING, Event.DRAINED): State.EXIT,
    (State.EXIT, Event.STOP): State.EXIT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LameDuck:
    """How long a server that leaves still serves; seconds. All 0 is not at all: there is nobody to tell."""

    propagation: float = 0.0
    """At least so long: until every client's routing has taken it out."""
    quiet: float = 0.0
    """Beyond that until no request has come for so long."""
    most: float = 0.0
    """At most so long, requests or not."""

    def rest(self, began: float, last_request: float | None, now: float) -> float:
        """Seconds until it may end, should no further request come; 0 and less: now."""
        quiet = began if last_request is None else last_request + self.quiet
        return min(began + self.most, max(began + self.propagation, quiet)) - now


AT_ONCE = LameDuck()
"""No time at all."""


class Lifecycle:
    """The state a server is in."""

    def __init__(self) -> None:
        self._state = State.SERVING
        self._last_request: float | None = None

    @property
    def state(self) -> State:
        """Where the server stands."""
        return self._state

    @property
    def is_leaving(self) -> bool:
        """Clients are told to leave."""
        return self._state is not State.SERVING

    @property
    def is_closing(self) -> bool:
        """New requests are refused."""
        return self._state in (State.CLOSING, State.EXIT)

    @property
    def last_request(self) -> float | None:
        """When the last request came; None before the first."""
        return self._last_request

    def came(self, now: float) -> None:
        """A request came."""
        self._last_request = now

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
