"""The inputs of one tenant at one priority: in buckets of like length, first in first out within each.

Taking inputs means popping from few buckets, so its cost does not grow with the number waiting. Entries of cancelled
works stay where they are and are dropped when they surface; the counts forget them at once.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterator

from embedfleet_server.batching.types import Entry, Work

_EXACT = 64  # lengths up to here have a bucket each

Bucket = Callable[[int], int]


def length_bucket(tokens: int) -> int:
    """The shortest length of the bucket of `tokens`: exact up to 64, then in steps of about 1/32 of the length."""
    if tokens <= _EXACT:
        return tokens
    step = 1 << (tokens.bit_length() - 6)
    return tokens - tokens % step


def one_bucket(tokens: int) -> int:
    """All lengths together: the order of arrival."""
    return 0


class Flow:
    """Waiting inputs that differ only in age and length."""

    def __init__(self, tenant: str, bucket: Bucket, now: float = 0.0) -> None:
        self.tenant = tenant
        self.led = now
        """When it last led a batch, or else when it began to wait."""
        self.count = 0
        self.tokens = 0
        self._bucket = bucket
        self._buckets: dict[int, deque[Entry]] = {}
        self._keys: list[int] = []  # of the buckets, sorted
        self._works: deque[Work] = deque()

    def push(self, work: Work) -> None:
        """Add every input of `work`."""
        buckets, bucket, number = self._buckets, self._bucket, work.number
        for index, cost in enumerate(work.costs):
            key = bucket(cost)
            found = buckets.get(key)
            if found is None:
                buckets[key] = found = deque()
                insort(self._keys, key)
            found.append((number, cost, work, index))
        self._works.append(work)
        self.count += work.waiting
        self.tokens += work.waiting_tokens

    def forget(self, work: Work) -> None:
        """Stop counting what waits of a work that was cancelled."""
        self.count -= work.waiting
        self.tokens -= work.waiting_tokens
        work.waiting = work.waiting_tokens = 0

    def regroup(self, bucket: Bucket) -> None:
        """Change how lengths share buckets."""
        entries = sorted((e for found in self._buckets.values() for e in found), key=lambda e: (e[0], e[3]))
        self._bucket, self._buckets = bucket, {}
        for entry in entries:
            self._buckets.setdefault(bucket(entry[1]), deque()).append(entry)
        self._keys = sorted(self._buckets)

    def oldest(self) -> Work | None:
        """The work that waits longest."""
        while self._works and not self._works[0].waiting:
            self._works.popleft()
        return self._works[0] if self._works else None

    def oldest_bucket(self) -> int:
        """The longest bucket with an input of the oldest work: each is first in first out, so it stands in front."""
        oldest = self.oldest()
        heads = ((key, self.peek(key)) for key in reversed(self._keys.copy()))
        return next(key for key, head in heads if head is not None and head[2] is oldest)

    def nearest(self, start: int) -> Iterator[int]:
        """Keys of the buckets, those nearest in length to `start` first; of two as near the longer."""
        keys = self._keys.copy()
        above = bisect_left(keys, start)
        below = above - 1
        while below >= 0 or above < len(keys):
            if below < 0 or (above < len(keys) and keys[above] - start <= start - keys[below]):
                yield keys[above]
                above += 1
            else:
                yield keys[below]
                below -= 1

    def peek(self, key: int) -> Entry | None:
        """The first input of a bucket whose work was not cancelled; an empty bucket goes away."""
        found = self._buckets[key]
        while found and found[0][2].cancelled:
            found.popleft()
        if found:
            return found[0]
        del self._buckets[key], self._keys[bisect_left(self._keys, key)]
        return None

    def pop(self, key: int) -> Entry:
        """Take the first input of a bucket that `peek` showed to hold one."""
        entry = self._buckets[key].popleft()
        cost, work = entry[1], entry[2]
        self.count -= 1
        self.tokens -= cost
        work.waiting -= 1
        work.waiting_tokens -= cost
        work.running += 1
        return entry
