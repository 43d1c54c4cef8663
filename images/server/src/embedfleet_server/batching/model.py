"""What the core knows of one model: its queue and bound, the devices it stands on, what its batches taught of each."""

import math
from dataclasses import dataclass, field

from embedfleet_server.batching.admission import Load
from embedfleet_server.batching.breaker import Breaker, State
from embedfleet_server.batching.cost import CostLine
from embedfleet_server.batching.flow import Bucket, length_bucket, one_bucket
from embedfleet_server.batching.learnt import Learnt
from embedfleet_server.batching.pressure import BatchMemory, Pressure
from embedfleet_server.batching.queue import ModelQueue
from embedfleet_server.batching.spread import Spread
from embedfleet_server.batching.types import Batch, Bound, Fault, Policy, Refusal, Room

_BADNESS = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2}
_ANY = 2**31  # batches at once where nothing bounds them


@dataclass(slots=True)
class ModelState:
    """One model of the core."""

    policy: Policy
    bound: Bound
    queue: ModelQueue
    load: Load = field(default_factory=Load)
    devices: tuple[str, ...] = ()
    """Those it stands on, a copy on each; none before it is loaded."""
    permits: int = _ANY
    """Most batches at once, over all models."""
    padded: bool = True
    paused: bool = False
    last_start: float = -math.inf
    spread: Spread = field(default_factory=Spread)
    breakers: dict[str, Breaker] = field(default_factory=dict)
    """By device, of those on which a batch was started; none where a failing model is not refused."""
    first: Learnt = field(default_factory=Learnt)
    """Of the first device, and what is taken for the others until a batch of theirs ran."""
    _further: dict[str, Learnt] = field(default_factory=dict)
    """Of the others, by name."""

    def change(self, policy: Policy, bound: Bound) -> None:
        """New values; what was learnt still counts."""
        before = self.policy.sizing
        self.policy, self.bound = policy, bound
        self.queue.regroup(self._bucket())
        for learnt in self._all():
            learnt.change(policy, None if before is None else before.initial)
        self._change_breakers(policy)

    # What is known of its devices.

    def on(self, device: str) -> Learnt:
        """What is known of the model on one of its devices."""
        return self._further.get(device, self.first)

    @property
    def cost(self) -> CostLine:
        """What batches cost on the first device."""
        return self.first.cost

    @property
    def known_cost(self) -> CostLine:
        """The same, as it is known best: by forwards before the first batch, until enough batches ran."""
        return self.first.known_cost

    @property
    def needs(self) -> BatchMemory:
        """What batches take of the first device's memory."""
        return self.first.needs

    def room(self, pressure: Pressure, device: str) -> Room:
        """What the next batch may hold on a device: as configured, learnt, and left by memory."""
        return self.on(device).room(self.policy, pressure)

    @property
    def size(self) -> int:
        """Most inputs in the next batch, on whichever device that is; where it is learnt, of average length."""
        return max(learnt.size(self.policy) for learnt in self._all())

    def learn_size_from(self, size: int) -> None:
        """Learn the size anew, from `size` on, where it is learnt."""
        for learnt in self._all():
            learnt.learn_size_from(size, self.policy)

    def tokens_per_second(self, *, surely: bool = False) -> float | None:
        """Speed of all its devices together, of which no more work at once than there are permits.

        Those of which it is not known (`surely`: or hardly) count as the mean of the others; None where that is all.
        """
        mean = self._mean_speed(surely) if self._further else self.first.tokens_per_second(surely=surely)
        return mean * min(self.permits, max(1, len(self.devices))) if mean else None

    def _mean_speed(self, surely: bool) -> float | None:
        speeds = [speed for learnt in self._all() if (speed := learnt.tokens_per_second(surely=surely))]
        return sum(speeds) / len(speeds) if speeds else None

    # Whether it is well.

    def may_start(self, device: str, now: float) -> bool:
        """Whether nothing of its own keeps it from starting a batch there."""
        breaker = self.breakers.get(device)
        return not self.paused and (breaker is None or breaker.may_start(now))

    def refusal(self, now: float) -> Refusal | None:
        """What the door answers where it fails on all of its devices: that of the one that is tried first."""
        if not self.devices or len(self.breakers) < len(self.devices):
            return None
        found = list[Refusal]()
        for breaker in self.breakers.values():
            if (refusal := breaker.refusal(now)) is None:
                return None
            found.append(refusal)
        return min(found, key=lambda refusal: refusal.retry_after or 0.0)

    def breaker_of(self) -> tuple[State, str]:
        """The state of the device on which it is best, and the cause of the last failure there."""
        if not self.devices or len(self.breakers) < len(self.devices):
            return State.CLOSED, ""
        best = min(self.breakers.values(), key=lambda breaker: _BADNESS[breaker.state])
        return best.state, best.cause

    def is_failing_on(self, device: str) -> bool:
        """Whether no batch of it goes there, or one that is to show whether it is well again."""
        return device in self.breakers and self.breakers[device].state is not State.CLOSED

    def expected(self, priority: int, tenant: str, tokens: int) -> float:
        """Seconds until what is served before new work is computed; 0 while no speed is known."""
        speed = self.tokens_per_second(surely=True)
        return self.queue.ahead(priority, tenant, tokens) / speed if speed else 0.0

    # What became of a batch.

    def started(self, batch: Batch) -> None:
        """A batch was handed out."""
        self.last_start = batch.formed
        if self.policy.breaking is not None:
            self.breakers.setdefault(batch.device, Breaker(self.policy.breaking)).started(batch.number)

    def ran(self, batch: Batch, seconds: float | None, peak_mib: float | None, failed: int, now: float) -> None:
        """A batch gave rows, `failed` of them useless; `seconds` and `peak_mib` where they were measured."""
        if seconds is not None:
            self.spread.learn(batch, batch.began + seconds)
        self._own(batch.device).ran(batch, seconds, peak_mib, self.policy)
        breaker = self.breakers.get(batch.device)
        if breaker is not None and failed < len(batch.entries):
            breaker.went_well(batch.number)
        elif breaker is not None:
            _broke(breaker, batch, "no row of a batch was finite", now)

    def failed(self, batch: Batch, fault: Fault, cause: str, now: float) -> None:
        """A batch gave nothing."""
        self._own(batch.device).failed(batch, fault)
        breaker = self.breakers.get(batch.device)
        if breaker is not None and fault is Fault.MEMORY:
            breaker.ended(batch.number)
        elif breaker is not None:
            _broke(breaker, batch, cause, now)

    def _own(self, device: str) -> Learnt:
        """The same as `on`, for a batch of that device to teach it: from now on apart from the first's."""
        if device in self.devices[1:] and device not in self._further:
            self._further[device] = self.first.copied()
        return self.on(device)

    def _all(self) -> list[Learnt]:
        return [self.first, *self._further.values()]

    def _change_breakers(self, policy: Policy) -> None:
        if policy.breaking is None:
            self.breakers.clear()
            return
        for breaker in self.breakers.values():
            if breaker.limits != policy.breaking:
                breaker.change(policy.breaking)

    def _bucket(self) -> Bucket:
        """How lengths share buckets: not at all where nothing is gained by it."""
        return length_bucket if self.policy.sort_by_length and self.policy.enabled else one_bucket


def _broke(breaker: Breaker, batch: Batch, cause: str, now: float) -> None:
    """Parts of a batch that failed before tell nothing new: one bad input counts once."""
    if batch.is_part:
        breaker.ended(batch.number)
    else:
        breaker.failed(batch.number, cause, now)
