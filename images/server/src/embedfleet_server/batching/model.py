"""What the core knows of one model: its queue and bound, where it runs, and what its batches taught."""

import math
from dataclasses import dataclass, field

from embedfleet_server.batching.admission import Load
from embedfleet_server.batching.breaker import Breaker
from embedfleet_server.batching.cost import CostLine
from embedfleet_server.batching.flow import Bucket, length_bucket, one_bucket
from embedfleet_server.batching.memory import MemoryBudget
from embedfleet_server.batching.pressure import BatchMemory, Pressure
from embedfleet_server.batching.queue import ModelQueue
from embedfleet_server.batching.sizing import AdaptiveSize
from embedfleet_server.batching.spread import Spread
from embedfleet_server.batching.types import Batch, Bound, Fault, Policy, Room

_KNOWN = 4.5  # weight of the batches seen, after the fifth, from which their speed is believed


@dataclass(slots=True)
class ModelState:
    """One model of the core."""

    policy: Policy
    bound: Bound
    queue: ModelQueue
    load: Load = field(default_factory=Load)
    device: str | None = None
    padded: bool = True
    paused: bool = False
    last_start: float = -math.inf
    cost: CostLine = field(default_factory=CostLine)
    memory: MemoryBudget = field(default_factory=MemoryBudget)
    spread: Spread = field(default_factory=Spread)
    needs: BatchMemory = field(default_factory=BatchMemory)
    sizer: AdaptiveSize | None = None
    breaker: Breaker | None = None

    def change(self, policy: Policy, bound: Bound) -> None:
        """New values; what was learnt still counts."""
        before = self.policy.sizing
        self.policy, self.bound = policy, bound
        self.queue.regroup(self._bucket())
        self._change_sizer(policy, None if before is None else before.initial)
        if policy.breaking is None:
            self.breaker = None
        elif self.breaker is None:
            self.breaker = Breaker(policy.breaking)
        elif self.breaker.limits != policy.breaking:
            self.breaker.change(policy.breaking)

    def room(self, pressure: Pressure) -> Room:
        """What the next batch may hold: as configured, learnt, and left by memory."""
        tokens = self._allowed()
        if self.sizer is None:
            return Room(self.policy.max_batch_size, pressure.within(tokens))
        learnt = self.sizer.tokens
        return Room(self.sizer.most, pressure.within(tokens if learnt is None else min(tokens, learnt)))

    @property
    def size(self) -> int:
        """Most inputs in the next batch; where it is learnt, of average length."""
        return self.policy.max_batch_size if self.sizer is None else self.sizer.size

    def learn_size_from(self, size: int) -> None:
        """Learn the size anew, from `size` on, where it is learnt."""
        sizing = self.policy.sizing
        if sizing is not None:
            self.sizer = AdaptiveSize(sizing.smallest, self.policy.max_batch_size, size, sizing.target)

    def may_start(self, now: float) -> bool:
        """Whether nothing of its own keeps it from starting a batch."""
        return not self.paused and (self.breaker is None or self.breaker.may_start(now))

    def expected(self, priority: int, tenant: str, tokens: int) -> float:
        """Seconds until what is served before new work is computed; 0 while no speed is known."""
        speed = self.cost.tokens_per_second() if self.cost.weight >= _KNOWN else None
        return self.queue.ahead(priority, tenant, tokens) / speed if speed else 0.0

    # What became of a batch.

    def started(self, batch: Batch) -> None:
        """A batch was handed out."""
        self.last_start = batch.formed
        if self.breaker is not None:
            self.breaker.started(batch.number)

    def ran(self, batch: Batch, seconds: float | None, peak_mib: float | None, failed: int, now: float) -> None:
        """A batch gave rows, `failed` of them useless; `seconds` and `peak_mib` where they were measured."""
        if seconds is not None:
            own = sum(entry[1] for entry in batch.entries)
            self.cost.learn(batch.tokens, seconds, own)
            self.spread.learn(batch, batch.formed + seconds)
            if self.sizer is not None:
                self.sizer.ran(len(batch.entries), own, seconds, batch.tokens, self._allowed())
        if peak_mib is not None:
            self.needs.learn(batch.tokens, peak_mib)
        self.memory.went_well(self.policy.max_batch_tokens)
        if self.breaker is not None and failed < len(batch.entries):
            self.breaker.went_well(batch.number)
        elif self.breaker is not None:
            self._broke(batch, "no row of a batch was finite", now)

    def failed(self, batch: Batch, fault: Fault, cause: str, now: float) -> None:
        """A batch gave nothing."""
        if fault is Fault.MEMORY:
            self.memory.ran_out(batch.tokens)
        if self.sizer is not None and fault is not Fault.PERMANENT:
            self.sizer.failed()
        if self.breaker is not None and fault is Fault.MEMORY:
            self.breaker.ended(batch.number)
        elif self.breaker is not None:
            self._broke(batch, cause, now)

    def _allowed(self) -> int:
        """Most tokens in a batch, as configured and left by memory."""
        policy = self.policy
        tokens = self.memory.within(policy.max_batch_tokens)
        seen = None if policy.max_batch_mib is None else self.needs.tokens_within(policy.max_batch_mib)
        return tokens if seen is None else max(1, min(tokens, seen))

    def _broke(self, batch: Batch, cause: str, now: float) -> None:
        """Parts of a batch that failed before tell nothing new: one bad input counts once."""
        assert self.breaker is not None
        if batch.is_part:
            self.breaker.ended(batch.number)
        else:
            self.breaker.failed(batch.number, cause, now)

    def _change_sizer(self, policy: Policy, initial: int | None) -> None:
        """Learn on, unless the size from which it is learnt is no longer `initial`."""
        sizing = policy.sizing
        if sizing is None:
            self.sizer = None
        elif self.sizer is None or sizing.initial != initial:
            self.learn_size_from(sizing.initial)
        else:
            self.sizer.change(sizing.smallest, policy.max_batch_size, sizing.target)

    def _bucket(self) -> Bucket:
        """How lengths share buckets: not at all where nothing is gained by it."""
        return length_bucket if self.policy.sort_by_length and self.policy.enabled else one_bucket
