"""The batching core: reserve, submit, next_batch, complete or fail. Pure: it never awaits, logs or reads a clock.

The driver tells it what happened and when; it answers what to do. One semaphore over all models: `next_batch` takes a
permit, `complete` and `fail` give it back. A device takes as many batches at once as it was said to; a model may stand
on several, and its batches go to the least loaded.

It is built in storeys, each a file: `Roster` (models and values), `Intake` (requests), `Dispatch` (batches), and here
what can be asked.
"""

from collections.abc import Mapping

from embedfleet_server.batching.admission import delay
from embedfleet_server.batching.breaker import State as BreakerState
from embedfleet_server.batching.cost import CostLine
from embedfleet_server.batching.dispatch import Dispatch
from embedfleet_server.batching.door import backlog_seconds
from embedfleet_server.batching.types import NORMAL, Stats


class BatchingCore(Dispatch):
    """Queues of several models, one bound over all of them, one semaphore."""

    def is_paused(self, name: str) -> bool:
        """Whether nothing of one model is started."""
        return self._models[name].paused

    def queue_depth(self, name: str) -> int:
        """Inputs waiting for model `name`, those being tokenised or to be tried again included."""
        load = self._models[name].load
        return load.inputs + load.reserved

    def queued_tokens(self, name: str) -> int:
        """Tokens waiting for model `name`, of inputs that are tokenised."""
        return self._models[name].load.tokens

    def batch_size(self, name: str) -> int:
        """Most inputs in the next batch of model `name`: as configured; or learnt, and then of average length."""
        return self._models[name].size

    def breaker_of(self, name: str) -> tuple[BreakerState, str]:
        """Whether model `name` is refused for failing on all of its devices, and the cause of the last failure."""
        return self._models[name].breaker_of()

    def failing_on(self, device: str) -> list[str]:
        """The models of which a device gets no batches for the time being, since those before failed there."""
        return [name for name, model in self._models.items() if model.is_failing_on(device)]

    def oldest_waiting(self, name: str) -> float | None:
        """When the input of model `name` that waits longest arrived."""
        oldest = self._models[name].queue.oldest()
        return None if oldest is None else oldest.arrived

    def oldest_running(self, name: str) -> float | None:
        """When the batch of model `name` that runs longest began to run."""
        return self._running.oldest(name)

    def running_since(self, name: str) -> Mapping[str, float]:
        """The same, for each device that runs a batch of the model."""
        return self._running.since(name)

    def devices(self) -> Mapping[str, int]:
        """How many batches each device has, those that models stand on in the order of the models."""
        names = dict.fromkeys(device for model in self._models.values() for device in model.devices)
        return {device: self._running.on_device(device) for device in names}

    @property
    def total_queue_depth(self) -> int:
        """Inputs waiting over all models."""
        return self._door.depth

    @property
    def is_idle(self) -> bool:
        """Nothing waits and nothing runs."""
        return not self._running and self.total_queue_depth == 0

    def costs(self) -> Mapping[str, CostLine]:
        """What is known of each model's cost, on its first device."""
        return {name: model.known_cost for name, model in self._models.items()}

    def tokens_per_second(self, name: str) -> float | None:
        """Speed of model `name` on all its devices together; None before its first batch."""
        return self._models[name].tokens_per_second()

    def retry_after(self) -> float:
        """Seconds until what waits now will have been computed."""
        return delay(backlog_seconds(self._models.values()))

    def wait(self, name: str, tokens: int = 0, *, priority: int = NORMAL, tenant: str = "") -> float:
        """Seconds within which nearly all work that comes now begins to be computed, the batch that runs left out."""
        model = self._models[name]
        return model.expected(priority, tenant, tokens) * model.spread.ratio

    def stats(self) -> Stats:
        """The counts, at this instant."""
        return self._ledger.stats(self._door.load.inputs, len(self._running))
