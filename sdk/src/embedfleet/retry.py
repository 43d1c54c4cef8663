"""Whether a failed attempt is worth another, and when: decided here, purely.

What a server refused with `accepted: false` cost it nothing, so it is tried again for as long as the client sees
progress: the clock of patience starts anew with every answer that any request of this client gets.
"""

import random
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """Why an attempt failed, as far as trying again goes."""

    BUSY = "busy"
    """The server is full: it works, just not for us yet."""
    LOADING = "loading"
    """The model is being loaded, which takes minutes for a large one."""
    AWAY = "away"
    """No server: no connection, a cut one, a server that leaves, a proxy without a server behind it."""
    FAILED = "failed"
    """The work was accepted and failed; embedding is idempotent, so another try harms nobody."""
    FINAL = "final"
    """The same request will fail again."""


PATIENCE_SECONDS = {Kind.BUSY: 300.0, Kind.LOADING: 600.0, Kind.AWAY: 30.0, Kind.FAILED: 120.0}
"""Longest without any progress before giving up, by kind."""

MOST_ATTEMPTS = {Kind.AWAY: 20, Kind.FAILED: 3}
"""Attempts of one request that end so, however well others do: one that only a proxy ever answers must end too."""

FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 5.0

_CODES = {
    "request_timeout": Kind.AWAY,
    "queue_full": Kind.BUSY,
    "shutting_down": Kind.AWAY,
    "device_lost": Kind.AWAY,
    "model_loading": Kind.LOADING,
    "model_failed": Kind.FINAL,  # the cause is known and will not pass by waiting: tell it at once
    "deadline_exceeded": Kind.FAILED,
    "internal": Kind.FAILED,
}
_STATUSES = {408: Kind.AWAY, 429: Kind.BUSY, 500: Kind.FAILED, 502: Kind.AWAY, 503: Kind.AWAY, 504: Kind.AWAY}


@dataclass(frozen=True, slots=True)
class Attempt:
    """A failed attempt: the how-manieth of its kind (from 1), seconds without progress, what the server asked for."""

    number: int
    kind: Kind
    seconds_without_progress: float
    retry_after: float | None = None


def classify(status: int, code: str | None, accepted: bool | None) -> Kind:
    """The kind of an error answer; the stable code decides, else the status (a proxy's answer has no code)."""
    kind = _CODES.get(code) if code else _STATUSES.get(status)
    if kind is Kind.FAILED and accepted is False:
        return Kind.AWAY
    return kind or Kind.FINAL


def decide(attempt: Attempt, rng: random.Random) -> float | None:
    """Seconds to wait before the next attempt, never less than the server asked for; None to give up."""
    if attempt.kind is Kind.FINAL or _exhausted(attempt):
        return None
    if attempt.retry_after is not None:
        # Later than asked by up to half, so that all who were refused together do not come back together.
        return attempt.retry_after * rng.uniform(1.0, 1.5)
    return backoff(attempt.number) * rng.uniform(0.5, 1.0)


def backoff(number: int) -> float:
    """Seconds after the `number`th failure when nobody said how long: doubling, bounded."""
    return float(min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** min(number - 1, 30)))


def _exhausted(attempt: Attempt) -> bool:
    if attempt.number >= MOST_ATTEMPTS.get(attempt.kind, attempt.number + 1):
        return True
    return attempt.seconds_without_progress >= PATIENCE_SECONDS[attempt.kind]
