"""The queue of one model: inputs in buckets of like length, first in first out within each.

Taking a batch means popping from few buckets, so its cost does not grow with the number waiting. Entries of cancelled
works stay where they are and are dropped when they surface; the counts forget them at once.
"""

from collections import deque
from collections.abc import Callable

from embedfleet_server.batching.types import Entry, Work

_EXACT = 64  # lengths up to here have a bucket each


def length_bucket(tokens: int) -> int:
    """The shortest length of the bucket of `tokens`: exact up to 64, then in steps of about 1/32 of the length."""
    if tokens <= _EXACT:
        return tokens
    step = 1 << (tokens.bit_length() - 6)
    return tokens - tokens % step


def one_bucket(tokens: int) -> int:
    """All lengths together: the order of arrival."""
    return 0


class ModelQueue:
    """Waiting inputs of one model."""

    def __init__(self, bucket: Callable[[int], int]) -> None:
        self.count = 0
        self.tokens = 0
        self._bucket = bucket
        self._buckets: dict[int, deque[Entry]] = {}
        self._works: deque[Work] = deque()

    def push(self, work: Work) -> None:
        """Add every input of `work`."""
        buckets, bucket, number = self._buckets, self._bucket, work.number
        for index, cost in enumerate(work.costs):
            key = bucket(cost)
            found = buckets.get(key)
            if found is None:
                buckets[key] = found = deque()
            found.append((number, cost, work, index))
        self._works.append(work)
        self.count += work.waiting
        self.tokens += work.waiting_tokens

    def forget(self, work: Work) -> None:
        """Stop counting what waits of a work that was cancelled."""
        self.count -= work.waiting
        self.tokens -= work.waiting_tokens
        work.waiting = work.waiting_tokens = 0

    def oldest(self) -> Work | None:
        """The work that waits longest."""
        while self._works and not self._works[0].waiting:
            self._works.popleft()
        return self._works[0] if self._works else None

    def oldest_bucket(self) -> int:
        """The longest bucket with an input of the oldest work: each is first in first out, so it stands in front."""
        heads = ((head[0], -key) for key in self.lengths() if (head := self.peek(key)) is not None)
        return -min(heads)[1]

    def lengths(self) -> list[int]:
        """Keys of the buckets, shortest first."""
        return sorted(self._buckets)

    def peek(self, key: int) -> Entry | None:
        """The first input of a bucket whose work was not cancelled; an empty bucket goes away."""
        found = self._buckets[key]
        while found and found[0][2].cancelled:
            found.popleft()
        if found:
            return found[0]
        del self._buckets[key]
        return None

    def pop(self, key: int) -> Entry:
        """Take the first input of a bucket that `peek` showed to hold one."""
        entry = self._buckets[key].popleft()
        self.count -= 1
        self.tokens -= entry[1]
        return entry

    def works(self) -> list[Work]:
        """Every work with an input waiting, oldest first."""
        return [work for work in self._works if work.waiting]
