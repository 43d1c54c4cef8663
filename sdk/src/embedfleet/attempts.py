"""One request until it is answered: the thin driver of `retry`, `gate` and `outage`."""

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from embedfleet.answers import Answered
from embedfleet.errors import BadInput, EmbedfleetError, InputError, ServiceUnavailable
from embedfleet.gate import Gate, Place
from embedfleet.outage import Outage
from embedfleet.retry import COSTLY, MOST_ATTEMPTS, Attempt, Budget, Kind, decide, patience
from embedfleet.tally import Tally
from embedfleet.transport import AttemptFailed
from embedfleet.wire import error_of

T = TypeVar("T")

TOO_LARGE = "input_too_large"
_CONGESTED = (Kind.BUSY, Kind.AWAY, Kind.LOST)
_SILENT = (Kind.AWAY, Kind.LOST)
RECENT = 60
"""As many latencies of the last requests are kept, for the card of a client."""


@dataclass(frozen=True, slots=True)
class Timing:
    """The clock, the sleep and the chance that retries go by."""

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    rng: random.Random = field(default_factory=random.Random)


async def _somebody() -> bool:
    return True


@dataclass(slots=True)
class _Story:
    """What one request has gone through."""

    where: Place
    tally: Tally
    start: int
    may_split: bool
    began: float
    sent: float = 0.0
    """When its last attempt began."""
    silent: float = 0.0
    """Seconds that attempts took of which nothing came."""
    kinds: Counter[Kind] = field(default_factory=Counter)
    probes: int = 0

    def splits(self, failed: AttemptFailed) -> bool:
        """Whether its halves are to be tried instead: it is too large, or may be what takes the server down."""
        lost = failed.kind is Kind.LOST and self.kinds[Kind.LOST] >= MOST_ATTEMPTS[Kind.LOST]
        return self.may_split and (lost or _whole_is_too_large(failed))


class Attempts:
    """Tries requests to `url` for as long as `retry` says; keeps the gate told.

    `probe` asks without a body whether a server answers.
    """

    def __init__(self, url: str, gate: Gate, timing: Timing, probe: Callable[[], Awaitable[bool]] = _somebody) -> None:
        self._url = url
        self._gate = gate
        self._timing = timing
        self._budget = Budget()
        self.recent: deque[float] = deque(maxlen=RECENT)
        """Seconds of the last requests with texts that were answered, as seen from here."""
        self._outage = Outage(probe, gate.restart, timing.clock, timing.sleep)

    async def until_answered(
        self,
        once: Callable[[], Awaitable[T]],
        where: Place,
        tally: Tally | None = None,
        start: int = 0,
        *,
        may_split: bool = False,
    ) -> T:
        """What `once()` gives at last. A full server gets no others' requests meanwhile: the place is kept.

        Raises the error of the last attempt; `AttemptFailed` itself when `may_split` and the halves should be tried.
        """
        story = _Story(where, tally or Tally(), start, may_split, self._timing.clock())
        while True:
            self._gate.sent(where)
            story.tally.tries += 1
            story.sent = self._timing.clock()
            try:
                answer = await once()
            except AttemptFailed as failed:
                await self._after(failed, story)
            else:
                self._answered(answer, story)
                return answer

    def error(self, failed: AttemptFailed, tries: int, start: int = 0) -> EmbedfleetError:
        """The SDK's error for the last of `tries` attempts."""
        if failed.failure is None:
            times = "" if tries == 1 else f" in {tries} attempts"
            return ServiceUnavailable(f"no answer from {self._url}{times}: {failed}")
        if _whole_is_too_large(failed):
            return BadInput.of([InputError(start, TOO_LARGE, failed.failure.message)])
        return error_of(failed.failure, self._url, start)

    def _answered(self, answer: object, story: _Story) -> None:
        now, sent = self._timing.clock(), story.sent
        waited = answer.queue_seconds if isinstance(answer, Answered) else None
        self._gate.answered(now, waited, story.where)
        self._budget.answered()
        if story.where.inputs:
            self.recent.append(now - sent)
        if isinstance(answer, Answered):
            story.tally.answered(answer, now - sent)

    async def _after(self, failed: AttemptFailed, story: _Story) -> None:
        """Wait until another attempt is due; raises when there is none."""
        story.kinds[failed.kind] += 1
        if failed.kind is Kind.LOST:
            story.silent += self._timing.clock() - story.sent
        if failed.kind is Kind.AWAY and failed.failure is None:
            story.tally.tries -= 1  # nothing listened, so nothing was sent
        if story.splits(failed):
            raise failed
        if failed.kind in _CONGESTED:
            self._gate.refused(story.where)
        seconds = decide(self._attempt(failed, story), self._timing.rng)
        if seconds is None:
            raise self._last(failed, story)
        if failed.kind in COSTLY:
            seconds = max(seconds, self._budget.take(self._timing.clock()))
        await self._pause(seconds, failed, story)

    async def _pause(self, seconds: float, failed: AttemptFailed, story: _Story) -> None:
        if failed.kind not in _SILENT:
            await self._timing.sleep(seconds)
            return
        seen, probes = self._outage.answered, self._outage.probes
        self._gate.leave(story.where)
        await self._timing.sleep(seconds)
        left = patience(failed.kind, in_a_run=story.tally.requests > 0) - self._quiet(failed.kind, story)
        if not await self._outage.over(seen, self._timing.clock() + left):
            story.probes += self._outage.probes - probes
            raise self._last(failed, story)
        await self._gate.back(story.where)

    def _last(self, failed: AttemptFailed, story: _Story) -> EmbedfleetError:
        error = self.error(failed, story.kinds.total() + story.probes, story.start)
        error.__cause__ = failed.__cause__ or failed
        return error

    def _attempt(self, failed: AttemptFailed, story: _Story) -> Attempt:
        retry_after = failed.failure.retry_after if failed.failure is not None else None
        number = story.kinds[failed.kind]
        return Attempt(
            number, failed.kind, self._quiet(failed.kind, story), retry_after, in_a_run=story.tally.requests > 0
        )

    def _quiet(self, kind: Kind, story: _Story) -> float:
        """Seconds without progress."""
        last, now = self._gate.last_answer, self._timing.clock()
        # Answers of other models do not show that this one's loading gets anywhere.
        since = story.began if last is None or kind in (Kind.LOADING, Kind.FAILING) else max(story.began, last)
        # Patience is for what comes after a loss: how long one took to show (a silent pod's, longest) uses none up.
        return max(0.0, now - since - story.silent) if kind in _SILENT else now - since


def _whole_is_too_large(failed: AttemptFailed) -> bool:
    """Whether the request is, rather than single texts of it that the answer lists."""
    return failed.failure is not None and failed.failure.code == TOO_LARGE and not failed.failure.errors
