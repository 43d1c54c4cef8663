"""Which object is to be looked at next: pure, a clock's reading is an argument.

An object stands in it once however many events ask for it, is worked on by one worker at a time, not more often than
every `_INTERVAL_SECONDS`, and after failures later and later.
"""

from dataclasses import dataclass

Key = tuple[str, str]
"""Namespace and name of an EmbeddingService."""

_INTERVAL_SECONDS = 0.2
"""Between two passes on one object: a burst of events (pods becoming ready) costs a few passes, not one each."""
_FIRST_SECONDS, _MOST_SECONDS = 0.5, 30.0
"""The wait after a first failure, which doubles with each further one up to the most."""
_YIELD_SECONDS = 10.0
"""How much later something may have happened to another object and still come before a mere resync."""


@dataclass(slots=True)
class _Entry:
    due: float | None = None
    """When it is to be looked at; None: not until something asks."""
    not_before: float = 0.0
    failures: int = 0
    busy: bool = False
    happened: bool = False
    """Something has happened to it; else it is looked at for safety's sake."""


class WorkQueue:
    """The objects that wait for a pass; times are seconds of a clock that never goes back."""

    def __init__(self) -> None:
        self._entries: dict[Key, _Entry] = {}

    def add(self, key: Key, now: float, delay: float = 0.0, *, happened: bool = True) -> None:
        """Ask for a pass on `key`, at the latest `delay` seconds from now if its back-off allows.

        One for a resync's sake (`happened` is false) lets others go first: an edit need not wait for all of them.
        """
        entry = self._entries.setdefault(key, _Entry())
        entry.happened |= happened
        entry.due = now + delay if entry.due is None else min(entry.due, now + delay)

    def take(self, now: float) -> Key | None:
        """The object that has waited longest of those that are due, now in work; None when there is none."""
        ready = [(_ready_at(entry), entry, key) for key, entry in self._entries.items()]
        due = [
            (at if entry.happened else at + _YIELD_SECONDS, key)
            for at, entry, key in ready
            if at is not None and at <= now
        ]
        if not due:
            return None
        _, key = min(due)
        entry = self._entries[key]
        entry.due, entry.busy, entry.happened, entry.not_before = None, True, False, now + _INTERVAL_SECONDS
        return key

    def done(self, key: Key, now: float, again: float | None = None) -> None:
        """The pass on `key` went well; `again` is after how many seconds another is wanted."""
        entry = self._entries[key]
        entry.busy, entry.failures = False, 0
        if again is not None:
            self.add(key, now, again)
        if entry.due is None and entry.not_before <= now:
            del self._entries[key]

    def failed(self, key: Key, now: float) -> None:
        """The pass on `key` did not come through; another follows after a back-off that grows."""
        entry = self._entries[key]
        entry.busy = False
        entry.not_before = now + min(_FIRST_SECONDS * 2**entry.failures, _MOST_SECONDS)
        entry.failures = min(entry.failures + 1, 16)  # the power would not stay a number for ever
        self.add(key, now)

    def wait_seconds(self, now: float) -> float | None:
        """How long until something is due; None when nothing waits."""
        times = [at for entry in self._entries.values() if (at := _ready_at(entry)) is not None]
        return max(0.0, min(times) - now) if times else None

    def __len__(self) -> int:
        """How many objects wait or are in work."""
        return sum(entry.busy or entry.due is not None for entry in self._entries.values())


def _ready_at(entry: _Entry) -> float | None:
    if entry.due is None or entry.busy:
        return None
    return max(entry.due, entry.not_before)
