"""Whether the watch still hears: pure, the clock's reading is an argument.

A quiet cluster sends no events, so their age alone says nothing. What a resync reads, the watch must have told as
well: an object whose version is still untold after `DEAF_SECONDS` shows a watch that no longer hears.
"""

from collections.abc import Mapping
from typing import Any

from embedfleet_operator.observed import plain

DEAF_SECONDS = 120.0
"""kopf makes a silent watch anew after 70 s; past that and a few attempts only a new process helps."""


class Hearing:
    """Compares what was read with what was told, by uid and resource version."""

    def __init__(self) -> None:
        self._told: dict[str, int] = {}
        self._missing: dict[str, tuple[int, float]] = {}

    def told(self, tree: Mapping[str, Any], *, gone: bool = False) -> None:
        """The watch told of `tree`; `gone` when of its end."""
        uid, version = _identity(tree)
        self._told[uid] = max(version, self._told.get(uid, 0))
        if gone:
            self._told.pop(uid, None)
        if uid in self._missing and (gone or self._missing[uid][0] <= version):
            del self._missing[uid]

    def read(self, trees: list[dict[str, Any]], now: float) -> None:
        """A resync read all `trees`, and there are no others."""
        found = dict(_identity(tree) for tree in trees)
        self._missing = {uid: one for uid, one in self._missing.items() if uid in found}
        self._told = {uid: version for uid, version in self._told.items() if uid in found}
        for uid, version in found.items():
            if self._told.get(uid, 0) < version:
                self._missing.setdefault(uid, (version, now))

    def silent_seconds(self, now: float) -> float:
        """For how long the watch has owed something that was read; 0 when it owes nothing."""
        return max((now - since for _, since in self._missing.values()), default=0.0)


def _identity(tree: Mapping[str, Any]) -> tuple[str, int]:
    version = plain.text(tree, "metadata", "resourceVersion") or "0"
    return plain.text(tree, "metadata", "uid") or "", int(version) if version.isdigit() else 0
