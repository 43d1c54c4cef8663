"""The circuit breaker of one model: past an error rate it refuses at once, then tries one batch until one is well.

CLOSED     all runs                  too many of the last batches failed   -> OPEN
OPEN       all is refused            the delay is over                     -> HALF_OPEN
HALF_OPEN  one batch runs, a probe   it was well                           -> CLOSED
                                     it failed                             -> OPEN, with twice the delay
"""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from embedfleet_server.batching.types import Breaking, Refusal


class State(Enum):
    """What the breaker lets through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Event(Enum):
    """What can change that."""

    TOO_MANY_FAILED = "too many failed"
    DELAY_OVER = "delay over"
    PROBE_WELL = "probe well"
    PROBE_FAILED = "probe failed"


TRANSITIONS = {
    (State.CLOSED, Event.TOO_MANY_FAILED): State.OPEN,
    (State.OPEN, Event.DELAY_OVER): State.HALF_OPEN,
    (State.HALF_OPEN, Event.PROBE_WELL): State.CLOSED,
    (State.HALF_OPEN, Event.PROBE_FAILED): State.OPEN,
}
"""The state after each event; an event that is not here for a state leaves it as it is."""


@dataclass(slots=True)
class Breaker:
    """The breaker of one model on one device; batches are known by their numbers, times are the driver's.

    `failed` is for batches as they were formed, not for halves of one that failed before, nor for too little memory:
    so one bad input counts once. `went_well` is for every batch, halves too.
    """

    limits: Breaking = field(default_factory=Breaking)
    state: State = State.CLOSED
    cause: str = ""
    opened: int = 0
    """How often it opened."""
    _outcomes: deque[bool] = field(init=False)
    _delay: float = field(init=False)
    _until: float = 0.0
    _probe: int | None = None

    def __post_init__(self) -> None:
        self._outcomes = deque(maxlen=self.limits.window)
        self._delay = self.limits.delay

    def change(self, limits: Breaking) -> None:
        """New limits; what was seen still counts."""
        self.limits = limits
        self._outcomes = deque(self._outcomes, limits.window)
        if self.state is State.CLOSED:
            self._delay = limits.delay

    # What may be done.

    def refusal(self, now: float) -> Refusal | None:
        """What the door answers, if it refuses. While a probe runs it does: what it shows will be known soon."""
        self._look(now)
        if self.state is State.CLOSED or (self.state is State.HALF_OPEN and self._probe is None):
            return None
        left = self._until - now if self.state is State.OPEN else self.limits.delay
        return Refusal(f"its batches fail: {self.cause}", left, failing=True)

    def may_start(self, now: float) -> bool:
        """Whether a batch may be started."""
        self._look(now)
        return self.state is State.CLOSED or (self.state is State.HALF_OPEN and self._probe is None)

    def wake_at(self) -> float | None:
        """When a batch may be started that may not now, by the clock alone."""
        return self._until if self.state is State.OPEN else None

    # What happened.

    def started(self, number: int) -> None:
        """A batch was started; after the delay it is the probe."""
        if self.state is State.HALF_OPEN and self._probe is None:
            self._probe = number

    def went_well(self, number: int) -> None:
        """A batch gave its vectors."""
        if self.state is State.CLOSED:
            self._outcomes.append(True)
        elif number == self._probe:
            self._happens(Event.PROBE_WELL)

    def failed(self, number: int, cause: str, now: float) -> None:
        """A batch failed. Of those that were started before the breaker opened nothing more is learnt."""
        if self.state is State.CLOSED:
            self.cause = cause
            self._outcomes.append(False)
            if self._too_many_failed():
                self._happens(Event.TOO_MANY_FAILED, now)
        elif number == self._probe:
            self.cause = cause
            self._happens(Event.PROBE_FAILED, now)

    def ended(self, number: int) -> None:
        """A batch ended in a way that shows nothing of the model; was it the probe, another one is."""
        if number == self._probe:
            self._probe = None

    # Inside.

    def _look(self, now: float) -> None:
        if self.state is State.OPEN and now >= self._until:
            self._happens(Event.DELAY_OVER)

    def _too_many_failed(self) -> bool:
        seen = len(self._outcomes)
        return seen >= self.limits.at_least and self._outcomes.count(False) > self.limits.error_rate * seen

    def _happens(self, event: Event, now: float = 0.0) -> None:
        self.state = TRANSITIONS.get((self.state, event), self.state)
        self._probe = None
        if self.state is State.OPEN:
            self._open(now)
        elif self.state is State.CLOSED:
            self._outcomes.clear()
            self._delay = self.limits.delay

    def _open(self, now: float) -> None:
        """Refuse for the delay; the next one is longer."""
        self.opened += 1
        self._until = now + self._delay
        self._delay = min(self.limits.longest_delay, 2 * self._delay)
