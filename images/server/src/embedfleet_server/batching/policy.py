"""The decisions: is a queue ready, and which inputs make its next batch."""

import math

from embedfleet_server.batching.flow import Flow
from embedfleet_server.batching.queue import ModelQueue
from embedfleet_server.batching.types import Entry, Policy, Room, Work

_TURN_TOKENS = 512  # what one tenant may take before the next one's turn: small against a batch, large against an input


def is_ready(policy: Policy, room: Room, queue: ModelQueue, oldest: Work, now: float, *, last_start: float) -> bool:
    """For a device with a place: full, or the oldest waited long enough, or nothing need wait for company."""
    if now >= oldest.arrived + policy.max_wait:
        return True
    if now < last_start + policy.min_interval:
        return False
    full = queue.count >= room.inputs or queue.tokens >= room.tokens or not policy.enabled
    return full or policy.dispatch_when_idle


def due_at(policy: Policy, oldest: Work, now: float, *, last_start: float) -> float:
    """When the queue will be ready by the clock alone: the end of its wait, or sooner that of the spacing of starts."""
    due = oldest.arrived + policy.max_wait
    spaced = last_start + policy.min_interval
    return min(due, spaced) if spaced > now else due


def form(
    policy: Policy, room: Room, queue: ModelQueue, now: float, *, padded: bool, start_tokens: float
) -> list[Entry]:
    """Take the next batch: an input of whom it is the turn of, and those nearest to it in length.

    By urgency of the priority, then in turns between its tenants (the leader first), then by length. Where the model
    pads, an input of another length costs padding; it shares the batch only as long as all the padding costs less than
    starting another forward would (`start_tokens`).
    """
    levels, first = queue.lead(now)
    if not policy.enabled:
        return _one_request(queue, levels[0], first, room)
    budget = _Budget(room, padded, start_tokens if padded and policy.sort_by_length else math.inf)
    taken: list[Entry] = []
    start = first.oldest_bucket()
    for level in levels:
        _fill(queue, level, start, budget, taken, first)
        if budget.is_full:
            break
    return taken


def computed_tokens(entries: list[Entry], *, padded: bool) -> int:
    """Tokens the model computes for these inputs."""
    if padded:
        return max(entry[1] for entry in entries) * len(entries)
    return sum(entry[1] for entry in entries)


class _Budget:
    """What still fits in the batch being formed."""

    __slots__ = ("longest", "max_padding", "padded", "room", "size", "tokens")

    def __init__(self, room: Room, padded: bool, max_padding: float) -> None:
        self.room, self.padded, self.max_padding = room, padded, max_padding
        self.size = self.tokens = self.longest = 0

    @property
    def is_full(self) -> bool:
        return self.size >= self.room.inputs

    def fits(self, cost: int) -> bool:
        if self.size == 0:
            return True  # one input larger than the budget goes alone
        if self.size >= self.room.inputs:
            return False
        tokens = self.tokens + cost
        computed = max(self.longest, cost) * (self.size + 1) if self.padded else tokens
        return computed <= self.room.tokens and computed - tokens <= self.max_padding

    def none_longer(self, unfit: int) -> bool:
        """Whether, where an input of `unfit` tokens did not fit, no longer one does."""
        return not self.padded or unfit >= self.longest

    def none_shorter(self, unfit: int) -> bool:
        """Whether no shorter one does: below the longest input, the shorter the more padding."""
        return self.padded and unfit <= self.longest

    def add(self, cost: int) -> None:
        self.size += 1
        self.tokens += cost
        self.longest = max(self.longest, cost)


def _fairest(queue: ModelQueue, flows: list[Flow]) -> Flow:
    return min(flows, key=queue.served)


def _fill(queue: ModelQueue, level: int, start: int, budget: _Budget, taken: list[Entry], first: Flow) -> None:
    """Take from the tenants of one priority in turns, until none has an input that fits; the leader begins."""
    flows = queue.flows(level)
    while flows and not budget.is_full:
        flow = _fairest(queue, flows) if taken else first
        turn = _TURN_TOKENS if len(flows) > 1 else math.inf
        inputs, tokens = _take_turn(flow, start, budget, taken, turn)
        if inputs:
            queue.took(level, flow, inputs, tokens)
        if tokens < turn or not flow.count:
            flows.remove(flow)


def _take_turn(flow: Flow, start: int, budget: _Budget, taken: list[Entry], turn: float) -> tuple[int, int]:
    """Take from one flow what fits, nearest lengths first, until its turn is over; inputs and tokens taken."""
    size, tokens = budget.size, budget.tokens
    shorter, longer = -math.inf, math.inf  # nothing fits of these lengths and beyond them
    for key in flow.nearest(start):
        if not shorter < key < longer:
            continue
        unfit = _take_bucket(flow, key, budget, taken, tokens + turn)
        if budget.is_full or budget.tokens - tokens >= turn:
            break
        if unfit is not None and budget.none_longer(unfit):
            longer = min(longer, key)
        if unfit is not None and budget.none_shorter(unfit):
            shorter = max(shorter, key)
        if shorter >= longer:
            break
    return budget.size - size, budget.tokens - tokens


def _take_bucket(flow: Flow, key: int, budget: _Budget, taken: list[Entry], until: float) -> int | None:
    """Take from one bucket until the batch is full or holds `until` tokens; the cost of the one that did not fit."""
    while (entry := flow.peek(key)) is not None and not budget.is_full and budget.tokens < until:
        if not budget.fits(entry[1]):
            return entry[1]
        taken.append(flow.pop(key))
        budget.add(entry[1])
    return None


def _one_request(queue: ModelQueue, level: int, flow: Flow, room: Room) -> list[Entry]:
    """Micro-batching is off: inputs of one request alone, still within the size limits."""
    budget = _Budget(room, padded=True, max_padding=math.inf)
    taken: list[Entry] = []
    oldest = flow.oldest()
    key = flow.oldest_bucket()
    while flow.count and (entry := flow.peek(key)) is not None and entry[2] is oldest and budget.fits(entry[1]):
        taken.append(flow.pop(key))
        budget.add(entry[1])
    queue.took(level, flow, budget.size, budget.tokens)
    return taken
