"""What runs: one semaphore over all models, and so many places on each device."""

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

    def has_place(self, device: str | None) -> bool:
        """Whether the device takes one more batch; None is a device that is not known yet."""
        return device is not None and self._on_device.get(device, 0) < self.per_device

    def is_idle(self, device: str | None) -> bool:
        """Whether a batch would run at once, rather than wait beside those that run."""
        return self._on_device.get(device or "", 0) < self.per_device - self.prepared

    def oldest(self, model: str) -> float | None:
        """When the batch of `model` that runs longest was formed."""
        return min((batch.formed for batch in self._active.values() if batch.model == model), default=None)

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
