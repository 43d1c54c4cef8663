"""Vectors kept for inputs that may come again, by what decides them: the model's fingerprint, the prompt, the input.

Rows are the model's own, before any cut to fewer dimensions, and another model has another fingerprint; so nothing kept
can outlive a change of model or be of another length.
"""

import sys
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from embedfleet_server.engine.protocols import Pair, Side
from embedfleet_server.engine.rows import AnyRows, weight

How = tuple[str, str | None, Side | None, bool, int]
"""Prompt, input type, the end that is cut, whether anything may be cut at all, and how often the form changed."""

Key = tuple[str, How, str | Pair | tuple[int, ...]]
"""Name and fingerprint of the model, how the input is tokenised, and the input: a text, a pair or token ids."""

_OVERHEAD = 400  # bytes of an entry beside row and input: key, dictionary slot, array and entry objects
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Kept:
    """One input's row, as rows of their own, its tokens, and whether it was cut to the model's limit."""

    row: AnyRows
    tokens: int
    truncated: bool


class VectorCache:
    """Least recently used goes first; `limit` in bytes, 0 keeps nothing."""

    def __init__(self, limit: int = 0) -> None:
        self._entries: OrderedDict[Key, Kept] = OrderedDict()
        self._limit = limit
        self.bytes = self.hits = self.misses = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def is_on(self) -> bool:
        """Whether anything is kept."""
        return self._limit > 0

    def resize(self, limit: int) -> None:
        """Keep at most `limit` bytes from now on."""
        self._limit = limit
        self._shrink()

    def get_many(self, keys: Sequence[Key]) -> dict[int, Kept]:
        """What is kept of these inputs, by their index."""
        if not self._limit:
            return {}
        found = {index: kept for index, key in enumerate(keys) if (kept := self._entries.get(key)) is not None}
        for index in found:
            self._entries.move_to_end(keys[index])
        self.hits += len(found)
        self.misses += len(keys) - len(found)
        return found

    def put_many(self, pairs: Iterable[tuple[Key, Kept]]) -> None:
        """Keep these; the longest unused make room."""
        if not self._limit:
            return
        for key, kept in pairs:
            if key not in self._entries:
                self._entries[key] = kept
                self.bytes += _size(key, kept)
        self._shrink()

    def _shrink(self) -> None:
        while self.bytes > self._limit:
            self.bytes -= _size(*self._entries.popitem(last=False))


def _size(key: Key, kept: Kept) -> int:
    item = key[2]
    characters = 4 * len(item) if isinstance(item, Pair) else sys.getsizeof(item)
    return weight(kept.row) + characters + _OVERHEAD
