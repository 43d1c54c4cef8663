"""What the engine tells of its queues at this instant: to the health of the service, to metrics, to callers."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass

from embedfleet.api import BatchingSettings
from embedfleet_server.batching.breaker import State
from embedfleet_server.batching.core import BatchingCore
from embedfleet_server.batching.types import NORMAL, Stats
from embedfleet_server.batching.warm_up import Costs
from embedfleet_server.engine.warming import Warming


@dataclass(frozen=True, slots=True)
class DeviceFigures:
    """One device: batches that it has now, seconds for which it computed in all, models that fail there."""

    batches: int
    busy_seconds: float
    failing: list[str]


class Figures:
    """The lower storey of `Engine`: questions that change nothing."""

    settings: BatchingSettings
    _core: BatchingCore
    _busy: defaultdict[str, float]
    """Seconds of batches that ended, by device."""
    _warming: Warming

    def queue_depth(self, model: str) -> int:
        """Inputs waiting for `model`."""
        return self._core.queue_depth(model)

    @property
    def total_queue_depth(self) -> int:
        """Inputs waiting over all models."""
        return self._core.total_queue_depth

    def stats(self) -> Stats:
        """The counts, at this instant."""
        return self._core.stats()

    @property
    def max_inputs(self) -> int:
        """Most inputs that one request may carry."""
        return self.settings.batching.max_queued_requests

    def ages(self, model: str) -> tuple[float, float]:
        """Seconds for which `model`'s oldest input waits, and its oldest batch runs; 0 where there is none."""
        now = asyncio.get_running_loop().time()
        waiting, running = self._core.oldest_waiting(model), self._core.oldest_running(model)
        return now - (now if waiting is None else waiting), now - (now if running is None else running)

    def devices(self) -> dict[str, DeviceFigures]:
        """The devices that models stand on, by name."""
        return {
            name: DeviceFigures(batches, round(self._busy[name], 6), self._core.failing_on(name))
            for name, batches in self._core.devices().items()
        }

    def is_failing(self, model: str) -> bool:
        """Whether requests for `model` are refused because its batches fail."""
        return self._core.breaker_of(model)[0] is not State.CLOSED

    def batch_size(self, model: str) -> int:
        """Most inputs in the next batch of `model`."""
        return self._core.batch_size(model)

    def queued_tokens(self, model: str) -> int:
        """Tokens waiting for `model`."""
        return self._core.queued_tokens(model)

    def wait(self, model: str, tokens: int = 0, *, priority: int = NORMAL, tenant: str = "") -> float:
        """Seconds within which nearly all work that comes now begins to be computed, the batch that runs left out."""
        return self._core.wait(model, tokens, priority=priority, tenant=tenant)

    def warm_up(self, model: str) -> Costs | None:
        """What was measured of `model` before it was ready; None where it was not."""
        return self._warming.costs.get(model)

    def safe_tokens(self, model: str) -> int | None:
        """Most tokens in a batch of `model` by its device's memory; None where that is not known."""
        return self._core.safe_tokens(model)

    def retry_after(self) -> float:
        """Seconds until what waits now will have been computed."""
        return self._core.retry_after()
