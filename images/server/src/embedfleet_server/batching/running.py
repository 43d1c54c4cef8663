"""What runs: one semaphore over all models, and so many places on each device."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from embedfleet_server.batching.types import Batch


@dataclass(slots=True)
class Running:
    """The batches handed out, each holding a permit and a place on its device."""

    permits: int
    per_device: int = 1
    prepared: int = 0
    """Places on a device where a batch only waits beside those that run."""
    _active: dict[int, Batch] = field(default_factory=dict)
    _on_device: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._active)

    @property
    def is_full(self) -> bool:
        """Whether no permit is left."""
        return len(self._active) >= self.permits

    def has_place(self, devices: Sequence[str]) -> bool:
        """Whether one of the devices takes one more batch."""
        return any(self._on_device.get(device, 0) < self.per_device for device in devices)

    def free(self, devices: Sequence[str], avoid: str = "") -> list[str]:
        """Those that take one more batch, the least loaded first, of equals in the order given; `avoid` is the last."""
        free = [device for device in devices if self._on_device.get(device, 0) < self.per_device]
        return sorted(free, key=lambda device: (device == avoid, self._load(device))) if len(free) > 1 else free

    def is_idle(self, device: str) -> bool:
        """Whether a batch would run at once, rather than wait beside those that run."""
        return self._on_device.get(device, 0) < self.per_device - self.prepared

    def on_device(self, device: str) -> int:
        """How many batches a device has."""
        return self._on_device.get(device, 0)

    def oldest(self, model: str) -> float | None:
        """When the batch of `model` that runs longest was formed."""
        return min((batch.formed for batch in self._active.values() if batch.model == model), default=None)

    def since(self, model: str) -> dict[str, float]:
        """The same for each device that runs one."""
        found: dict[str, float] = {}
        for batch in self._active.values():
            if batch.model == model:
                found[batch.device] = min(batch.formed, found.get(batch.device, batch.formed))
        return found

    def start(self, batch: Batch) -> None:
        """Take permit and place."""
        self._active[batch.number] = batch
        self._on_device[batch.device] = self._on_device.get(batch.device, 0) + 1

    def leave(self, batch: Batch) -> int:
        """Give permit and place back; returns how many of the inputs were cancelled meanwhile."""
        del self._active[batch.number]
        self._on_device[batch.device] -= 1
        gone = 0
        for _, _, work, _ in batch.entries:
            work.running -= 1
            gone += work.cancelled
        return gone

    def _load(self, device: str) -> tuple[float, int]:
        """What runs there: seconds that it takes in all, by what was measured, and how many batches."""
        batches = [batch for batch in self._active.values() if batch.device == device]
        return sum(batch.expected for batch in batches), len(batches)
