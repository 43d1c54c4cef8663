"""Health of a processor: what is wrong is logged when it begins and when it ends, not over and over."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

_EVERY = 30.0  # seconds (requirement H1)
_WARNING, _CRITICAL = 0.5, 0.8  # of the queue's bound: 500 and 800 of the usual 1000
_log = logging.getLogger("embedfleet.processor")


@dataclass(frozen=True, slots=True)
class Seen:
    """The state at one instant: items waiting of so many places, and for how long the oldest call has run (seconds)."""

    waiting: int
    places: int
    longest_call: float


def findings(seen: Seen, stuck_after: float) -> dict[str, str]:
    """What is wrong, by the name of the finding."""
    found = {}
    if seen.waiting >= _CRITICAL * seen.places:
        found["queue"] = f"critical: the queue is at least {_CRITICAL:.0%} full"
    elif seen.waiting >= _WARNING * seen.places:
        found["queue"] = f"warning: the queue is at least {_WARNING:.0%} full"
    if seen.longest_call > stuck_after:
        found["stuck"] = f"critical: a call of process_func has not returned for more than {stuck_after:.0f} s"
    return found


class Watch:
    """Looks every 30 s, on the running loop, until it is cancelled."""

    def __init__(self, look: Callable[[], Seen], stuck_after: float) -> None:
        """`stuck_after`: seconds after which a call counts as stuck."""
        self._look, self._stuck_after = look, stuck_after
        self._found: dict[str, str] = {}
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(_EVERY, self._check)

    def cancel(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _check(self) -> None:
        found = findings(self._look(), self._stuck_after)
        for name, text in found.items():
            if text != self._found.get(name):
                _log.warning("health: %s", text)
        for name in self._found.keys() - found.keys():
            _log.warning("health: over: %s", self._found[name])
        self._found = found
        self._timer = self._loop.call_later(_EVERY, self._check)
