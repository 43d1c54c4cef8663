"""What the batches of one model taught of one device: their cost, their memory, and how large they should be."""

import copy
from dataclasses import dataclass, field

from embedfleet_server.batching.cost import CostLine
from embedfleet_server.batching.memory import MemoryBudget
from embedfleet_server.batching.pressure import BatchMemory, Pressure
from embedfleet_server.batching.sizing import AdaptiveSize
from embedfleet_server.batching.types import Batch, Fault, Policy, Room


@dataclass(slots=True)
class Learnt:
    """One model on one device."""

    cost: CostLine = field(default_factory=CostLine)
    memory: MemoryBudget = field(default_factory=MemoryBudget)
    needs: BatchMemory = field(default_factory=BatchMemory)
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
        tokens = self.memory.within(policy.max_batch_tokens)
        seen = None if policy.max_batch_mib is None else self.needs.tokens_within(policy.max_batch_mib)
        return tokens if seen is None else max(1, min(tokens, seen))

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
