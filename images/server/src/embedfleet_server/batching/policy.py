"""The decisions: is a queue ready, when will it be, and which inputs make its next batch."""

import math

from embedfleet_server.batching.queue import ModelQueue
from embedfleet_server.batching.types import Entry, Policy


def is_ready(policy: Policy, queue: ModelQueue, oldest_arrived: float, now: float, *, idle: bool) -> bool:
    """Full, or the oldest waited long enough, or a device stands idle and nothing need wait for company."""
    if queue.count >= policy.max_batch_size or queue.tokens >= policy.max_batch_tokens:
        return True
    return (idle and policy.dispatch_when_idle) or now >= oldest_arrived + policy.max_wait


def form(policy: Policy, queue: ModelQueue, *, padded: bool, start_tokens: float) -> list[Entry]:
    """Take the next batch: an input of the oldest work, and those nearest to it in length.

    Where the model pads, an input of another length costs padding; it shares the batch only as long as all the padding
    costs less than starting another forward would (`start_tokens`).
    """
    budget = _Budget(policy, padded, start_tokens if padded and policy.sort_by_length else math.inf)
    taken: list[Entry] = []
    start = queue.oldest_bucket()
    for key in sorted(queue.lengths(), key=lambda length: abs(length - start)):
        if not _take(queue, key, budget, taken):
            break
    return taken


def computed_tokens(entries: list[Entry], *, padded: bool) -> int:
    """Tokens the model computes for these inputs."""
    if padded:
        return max(entry[1] for entry in entries) * len(entries)
    return sum(entry[1] for entry in entries)


class _Budget:
    """What still fits in the batch being formed."""

    __slots__ = ("longest", "max_padding", "padded", "policy", "size", "tokens")

    def __init__(self, policy: Policy, padded: bool, max_padding: float) -> None:
        self.policy, self.padded, self.max_padding = policy, padded, max_padding
        self.size = self.tokens = self.longest = 0

    def fits(self, cost: int) -> bool:
        if self.size == 0:
            return True  # one input larger than the budget goes alone
        if self.size >= self.policy.max_batch_size:
            return False
        tokens = self.tokens + cost
        computed = max(self.longest, cost) * (self.size + 1) if self.padded else tokens
        return computed <= self.policy.max_batch_tokens and computed - tokens <= self.max_padding

    def add(self, cost: int) -> None:
        self.size += 1
        self.tokens += cost
        self.longest = max(self.longest, cost)


def _take(queue: ModelQueue, key: int, budget: _Budget, taken: list[Entry]) -> bool:
    """Take from one bucket what fits; False when the batch can take no more."""
    while (entry := queue.peek(key)) is not None:
        if not budget.fits(entry[1]):
            return False
        taken.append(queue.pop(key))
        budget.add(entry[1])
    return True
