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
    FAILING = "failing"
    """The server refuses the model for a while, since its last batches failed; it tries one from time to time."""
    AWAY = "away"
    """No server: no connection, a server that leaves, a proxy without a server behind it. Nothing was taken."""
    LOST = "lost"
    """The request was sent and nothing came of it: a cut connection, a lost device. The work may have been done."""
    FAILED = "failed"
    """The work was accepted and failed; embedding is idempotent, so another try harms nobody."""
    FINAL = "final"
    """The same request will fail again."""


PATIENCE_SECONDS = {
    Kind.BUSY: 300.0,
    Kind.LOADING: 600.0,
    Kind.FAILING: 120.0,
    Kind.AWAY: 30.0,
    Kind.LOST: 30.0,
    Kind.FAILED: 120.0,
}
"""Longest without any progress before giving up, by kind."""

RUN_PATIENCE_SECONDS = {Kind.AWAY: 600.0, Kind.LOST: 600.0}
"""The same once the call has had answers: what a long run has is worth waiting for the server to come back."""

MOST_ATTEMPTS = {Kind.LOST: 3, Kind.FAILED: 3}
"""Attempts of one request that end so, however well others do: what may have cost the server work."""

COSTLY = frozenset(MOST_ATTEMPTS)
"""The kinds whose further attempts are paid from the budget; a refusal cost the server nothing."""

FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 5.0

EXTRA_LOAD = 0.1
"""Most attempts beyond the needed ones, as a share of the answers."""
FIRST_TOKENS = 10.0
TOKENS_PER_SECOND = 1.0
MOST_TOKENS = 256.0

_CODES = {
    "request_timeout": Kind.LOST,
    "queue_full": Kind.BUSY,
    "shutting_down": Kind.AWAY,
    "device_lost": Kind.LOST,
    "model_loading": Kind.LOADING,
    "model_failing": Kind.FAILING,
    "model_failed": Kind.FINAL,  # the cause is known and will not pass by waiting: tell it at once
    "deadline_exceeded": Kind.FAILED,
    "internal": Kind.FAILED,
}
_STATUSES = {408: Kind.LOST, 429: Kind.BUSY, 500: Kind.FAILED, 502: Kind.LOST, 503: Kind.AWAY, 504: Kind.LOST}


@dataclass(frozen=True, slots=True)
class Attempt:
    """A failed attempt: the how-manieth of its kind (from 1), seconds without progress, what the server asked for."""

    number: int
    kind: Kind
    seconds_without_progress: float
    retry_after: float | None = None
    in_a_run: bool = False
    """Whether the call has had answers already."""


def patience(kind: Kind, *, in_a_run: bool = False) -> float:
    """Seconds without progress that a request of this kind waits out."""
    return RUN_PATIENCE_SECONDS.get(kind, PATIENCE_SECONDS[kind]) if in_a_run else PATIENCE_SECONDS[kind]


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
    return attempt.seconds_without_progress >= patience(attempt.kind, in_a_run=attempt.in_a_run)


@dataclass(slots=True)
class Budget:
    """Pays for attempts that repeat work: one for each ten answers, and one a second so that a run always goes on.

    The idea is Finagle's RetryBudget: many requests that fail together must not double the load of a sick server.
    """

    tokens: float = FIRST_TOKENS
    last: float | None = None

    def answered(self) -> None:
        """A request was answered: a tenth of an attempt more."""
        self.tokens = min(MOST_TOKENS, self.tokens + EXTRA_LOAD)

    def take(self, now: float) -> float:
        """Pay one attempt; seconds to wait until it is paid for."""
        since = 0.0 if self.last is None else now - self.last
        self.tokens = min(MOST_TOKENS, self.tokens + since * TOKENS_PER_SECOND) - 1
        self.last = now
        return max(0.0, -self.tokens / TOKENS_PER_SECOND)
