"""What runs, and what waits beside it: one semaphore over all models, and so many places on each device.

A device that computes in small bites stands idle between two of them while the next is formed and handed over. So the
next batch may be formed `ahead` of the end that is expected of the one that runs: early enough to stand ready, late
enough to take in nearly all who come meanwhile. Who is urgent and comes later still waits for both.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from embedfleet_server.batching.types import Batch

_UNSURE = 0.05
"""Of the seconds a batch is expected to take, how much earlier it may well end; chosen, not measured."""


@dataclass(slots=True)
class Running:
    """The batches handed out, each holding a permit and a place on its device."""

    permits: int
    per_device: int = 1
    """Batches that a device runs at once."""
    ahead: float = 0.0
    """Seconds before a place becomes free, from which one more batch may wait for it; 0 is never."""
    devices: set[str] = field(default_factory=set)
    """All there are: one that stands idle has the first claim to a permit."""
    _active: dict[int, Batch] = field(default_factory=dict)
    _on_device: dict[str, list[Batch]] = field(default_factory=dict)
    """In the order in which they are computed."""

    def __len__(self) -> int:
        return len(self._active)

    @property
    def is_full(self) -> bool:
        """Whether no permit is left."""
        return len(self._active) >= self.permits

    def opens_at(self, device: str, now: float) -> float:
        """When the device takes one more batch; inf where it does not before one ends.

        One whose batch takes twice as long as expected may hang: who waits behind it there could be computed elsewhere.
        """
        there = self._on_device.get(device, ())
        if len(there) < self.per_device:
            return -math.inf
        if not self.ahead or len(there) > self.per_device or not self._may_spare_a_permit():
            return math.inf
        next_ = min(there, key=_ends)
        is_overdue = now > _ends(next_) + max(self.ahead, next_.expected)
        lead = max(min(self.ahead, next_.expected / 2), _UNSURE * next_.expected)
        return math.inf if is_overdue else _ends(next_) - lead

    def free(self, devices: Sequence[str], now: float, avoid: str = "") -> list[str]:
        """Those that take one more batch, the least loaded first, of equals in the order given; `avoid` is the last."""
        free = [device for device in devices if self.opens_at(device, now) <= now]
        return sorted(free, key=lambda device: (device == avoid, self._load(device))) if len(free) > 1 else free

    def on_device(self, device: str) -> int:
        """How many batches a device has."""
        return len(self._on_device.get(device, ()))

    def oldest(self, model: str) -> float | None:
        """When the batch of `model` that runs longest began to run."""
        return min(self.since(model).values(), default=None)

    def since(self, model: str) -> dict[str, float]:
        """The same for each device that runs one."""
        found: dict[str, float] = {}
        for batch in self._active.values():
            if batch.model == model and batch.began < math.inf:
                found[batch.device] = min(batch.began, found.get(batch.device, math.inf))
        return found

    def start(self, batch: Batch) -> None:
        """Take permit and place; it runs from now, or once a batch before it has ended."""
        self._active[batch.number] = batch
        there = self._on_device.setdefault(batch.device, [])
        there.append(batch)
        if len(there) <= self.per_device:
            batch.began = batch.formed

    def leave(self, batch: Batch, now: float) -> int:
        """Give permit and place back; returns how many of the inputs were cancelled meanwhile."""
        del self._active[batch.number]
        batch.began = min(batch.began, max(batch.formed, now))  # it may have failed before its turn came
        there = self._on_device[batch.device]
        there.remove(batch)
        for other in there[: self.per_device]:
            other.began = min(other.began, max(other.formed, now))
        gone = 0
        for _, _, work, _ in batch.entries:
            work.running -= 1
            gone += work.cancelled
        return gone

    def _may_spare_a_permit(self) -> bool:
        idle = sum(not self._on_device.get(device) for device in self.devices)
        return self.permits - len(self._active) > idle

    def _load(self, device: str) -> tuple[float, int]:
        """What runs there: seconds that it takes in all, by what was measured, and how many batches."""
        batches = self._on_device.get(device, ())
        return sum(batch.expected for batch in batches), len(batches)


def _ends(batch: Batch) -> float:
    """When a batch that runs is expected to end; inf where that is not known."""
    return batch.began + batch.expected if batch.expected > 0 else math.inf
