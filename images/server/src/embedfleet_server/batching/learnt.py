"""What the batches of one model taught of one device: their cost, their memory, and how large they should be."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from embedfleet_server.batching.cost import CostLine
from embedfleet_server.batching.memory import MemoryBudget
from embedfleet_server.batching.pressure import BatchMemory, Pressure
from embedfleet_server.batching.sizing import AdaptiveSize
from embedfleet_server.batching.types import Batch, Fault, Policy, Room

_KNOWN = 4.5  # weight of the batches seen, after the fifth, from which their speed is believed


@dataclass(slots=True)
class Learnt:
    """One model on one device."""

    cost: CostLine = field(default_factory=CostLine)
    before: CostLine = field(default_factory=CostLine)
    """The cost of forwards before the first batch, on an idle device: it counts until that of batches is known."""
    memory: MemoryBudget = field(default_factory=MemoryBudget)
    needs: BatchMemory = field(default_factory=BatchMemory)
    room_mib: float | None = None
    """What a batch may take of the device's memory; None where that is not known."""
    proven: int = 0
    """Most tokens of a forward that went well before the first batch."""
    sizer: AdaptiveSize | None = None

    def copied(self) -> "Learnt":
        """The same, to learn on by itself: what is known of one device is the best guess of another.

        But its cost, by which devices are told apart, counts no more than the first batch will.
        """
        made = copy.deepcopy(self)
        made.cost.weight = min(1.0, made.cost.weight)
        return made

    def room(self, policy: Policy, pressure: Pressure) -> Room:
        """What the next batch may hold: as configured, learnt, and left by memory."""
        tokens = self.allowed(policy)
        if self.sizer is None:
            return Room(policy.max_batch_size, pressure.within(tokens))
        learnt = self.sizer.tokens
        return Room(self.sizer.most, pressure.within(tokens if learnt is None else min(tokens, learnt)))

    def allowed(self, policy: Policy) -> int:
        """Most tokens in a batch, as configured and left by memory."""
        return max(1, int(min(policy.max_batch_tokens, self.fitting(policy))))

    def fitting(self, policy: Policy) -> float:
        """The same by memory alone, the device's and what the policy leaves of it; inf where nothing is known."""
        limit = policy.max_batch_mib
        seen = None if limit is None else self.needs.tokens_within(limit)
        return min((bound for bound in (seen, self.safe_tokens()) if bound is not None), default=math.inf)

    def safe_tokens(self) -> int | None:
        """Most tokens in a batch by the device's memory: what has room there, or half of what ran out of it.

        None where neither is known. Never fewer than went well before the first batch: memory that was in use at one
        moment must not keep batches small for ever.
        """
        fits = None
        if self.room_mib is not None and self.needs.is_line:
            fits = max(self.proven, self.needs.tokens_within(self.room_mib) or 0)
        return min((bound for bound in (fits, self.memory.tokens) if bound is not None), default=None)

    @property
    def known_cost(self) -> CostLine:
        """What batches cost, as it is known best: from the fifth batch on by those that ran."""
        return self.before if self.before.weight and self.cost.weight < _KNOWN else self.cost

    def tokens_per_second(self, *, surely: bool = False) -> float | None:
        """Speed as it is known best; `surely`, None before five batches or forwards of different sizes were seen."""
        line = self.known_cost
        is_sure = line.slope() is not None if line is self.before else line.weight >= _KNOWN
        return line.tokens_per_second() if is_sure or not surely else None

    def seed(self, points: Sequence[tuple[int, float]]) -> None:
        """Tokens and seconds of forwards before the first batch; none of them was padded."""
        for tokens, seconds in points:
            self.before.learn(tokens, seconds)
            self.proven = max(self.proven, tokens)
        if self.sizer is not None:
            self.sizer.seed(points)

    def size(self, policy: Policy) -> int:
        """Most inputs in the next batch; where it is learnt, of average length."""
        return policy.max_batch_size if self.sizer is None else self.sizer.size

    def learn_size_from(self, size: int, policy: Policy) -> None:
        """Learn the size anew, from `size` on, where it is learnt."""
        sizing = policy.sizing
        if sizing is not None:
            self.sizer = AdaptiveSize(sizing.smallest, policy.max_batch_size, size, sizing.target)

    def change(self, policy: Policy, initial: int | None) -> None:
        """New values. Learn on, unless the size from which it is learnt is no longer `initial`."""
        sizing = policy.sizing
        if sizing is None:
            self.sizer = None
        elif self.sizer is None or sizing.initial != initial:
            self.learn_size_from(sizing.initial, policy)
        else:
            self.sizer.change(sizing.smallest, policy.max_batch_size, sizing.target)

    # What became of a batch.

    def ran(self, batch: Batch, seconds: float | None, peak_mib: float | None, policy: Policy) -> None:
        """A batch gave rows; `seconds` and `peak_mib` where they were measured."""
        if seconds is not None:
            own = sum(entry[1] for entry in batch.entries)
            self.cost.learn(batch.tokens, seconds, own)
            if self.sizer is not None:
                self.sizer.ran(len(batch.entries), own, seconds, batch.tokens, self.allowed(policy))
        if peak_mib is not None:
            self.needs.learn(batch.tokens, peak_mib)
        self.memory.went_well(policy.max_batch_tokens)

    def failed(self, batch: Batch, fault: Fault) -> None:
        """A batch gave nothing."""
        if fault is Fault.MEMORY:
            self.memory.ran_out(batch.tokens)
        if self.sizer is not None and fault is not Fault.PERMANENT:
            self.sizer.failed()
