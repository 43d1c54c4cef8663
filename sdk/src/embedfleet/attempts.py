"""One request until it is answered: the thin driver of `retry` and `gate`."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from embedfleet.errors import BadInput, EmbedfleetError, InputError, ServiceUnavailable
from embedfleet.gate import Gate, Place
from embedfleet.retry import Attempt, Kind, decide
from embedfleet.transport import Answered, AttemptFailed
from embedfleet.wire import error_of

T = TypeVar("T")

TOO_LARGE = "input_too_large"


@dataclass(frozen=True, slots=True)
class Timing:
    """The clock, the sleep and the chance that retries go by."""

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    rng: random.Random = field(default_factory=random.Random)


class Attempts:
    """Tries requests to `url` for as long as `retry` says; keeps the gate told."""

    def __init__(self, url: str, gate: Gate, timing: Timing) -> None:
        self._url = url
        self._gate = gate
        self._timing = timing

    async def until_answered(
        self, once: Callable[[], Awaitable[T]], where: Place, start: int = 0, *, may_split: bool = False
    ) -> T:
        """What `once()` gives at last. The place is kept meanwhile, so that a full server gets no others' requests.

        Raises the error of the last attempt; `AttemptFailed` itself when the request is too large and `may_split`.
        """
        began, kinds = self._timing.clock(), Counter[Kind]()
        while True:
            self._gate.sent(where)
            try:
                answer = await once()
            except AttemptFailed as failed:
                if may_split and _whole_is_too_large(failed):
                    raise
                kinds[failed.kind] += 1
                await self._wait(failed, began, kinds, where, start)
            else:
                waited = answer.queue_seconds if isinstance(answer, Answered) else 0.0
                self._gate.answered(self._timing.clock(), waited)
                return answer

    def error(self, failed: AttemptFailed, tries: int, start: int = 0) -> EmbedfleetError:
        """The SDK's error for the last of `tries` attempts."""
        if failed.failure is None:
            times = "" if tries == 1 else f" in {tries} attempts"
            return ServiceUnavailable(f"no answer from {self._url}{times}: {failed}")
        if _whole_is_too_large(failed):
            return BadInput.of([InputError(start, TOO_LARGE, failed.failure.message)])
        return error_of(failed.failure, self._url, start)

    async def _wait(self, failed: AttemptFailed, began: float, kinds: Counter[Kind], where: Place, start: int) -> None:
        if failed.kind in (Kind.BUSY, Kind.AWAY):
            self._gate.refused(where)
        retry_after = failed.failure.retry_after if failed.failure is not None else None
        attempt = Attempt(kinds[failed.kind], failed.kind, self._without_progress(failed.kind, began), retry_after)
        seconds = decide(attempt, self._timing.rng)
        if seconds is None:
            raise self.error(failed, kinds.total(), start) from (failed.__cause__ or failed)
        await self._timing.sleep(seconds)

    def _without_progress(self, kind: Kind, began: float) -> float:
        last = self._gate.last_answer
        # Answers of other models do not show that this one's loading gets anywhere.
        since = began if last is None or kind is Kind.LOADING else max(began, last)
        return self._timing.clock() - since


def _whole_is_too_large(failed: AttemptFailed) -> bool:
    """Whether the request is, rather than single texts of it that the answer lists."""
    return failed.failure is not None and failed.failure.code == TOO_LARGE and not failed.failure.errors
