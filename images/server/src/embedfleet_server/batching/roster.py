"""The models of the core and the values they are served by, all of which may change while work waits."""

from collections.abc import Sequence

from embedfleet_server.batching.door import Door
from embedfleet_server.batching.fairness import Accounts
from embedfleet_server.batching.flow import one_bucket
from embedfleet_server.batching.isolate import HeldBatches
from embedfleet_server.batching.ledger import Ledger
from embedfleet_server.batching.model import ModelState
from embedfleet_server.batching.pressure import Pressure
from embedfleet_server.batching.queue import ModelQueue
from embedfleet_server.batching.running import Running
from embedfleet_server.batching.types import Bound, Policy, Retry


class Roster:
    """What all parts of the core look at: models, the door before their queues, what runs, what is tried again."""

    def __init__(
        self,
        permits: int,
        bound: Bound,
        batches_per_device: int = 1,
        retry: Retry | None = None,
        *,
        ahead: float = 0.0,
    ) -> None:
        """`permits`: batches at once over all models; `batches_per_device`: of these, on one device.

        From `ahead` seconds before one of them is expected to end, one more may wait on the device for its turn; the
        driver runs the batches of a device in the order in which it was given them. 0: none ever waits there.
        """
        self.retry = retry or Retry()
        self.paused = False
        self._running = Running(permits, batches_per_device, ahead)
        self._door = Door(bound)
        self._models: dict[str, ModelState] = {}
        self._turns = Accounts()
        self._tenants = Accounts()
        self._held = HeldBatches()
        self._ledger = Ledger()
        self._numbers = 0

    @property
    def permits(self) -> int:
        """Most batches at once, over all models."""
        return self._running.permits

    @permits.setter
    def permits(self, permits: int) -> None:
        self._running.permits = permits
        for model in self._models.values():
            model.permits = permits

    @property
    def bound(self) -> Bound:
        """Most inputs and tokens that wait, over all models."""
        return self._door.bound

    @bound.setter
    def bound(self, bound: Bound) -> None:
        self._door.bound = bound

    @property
    def pressure(self) -> Pressure:
        """How full memory is, and what follows."""
        return self._door.pressure

    def add_model(self, name: str, policy: Policy, bound: Bound | None = None) -> None:
        """A queue for model `name`; nothing of it runs until `model_ready`."""
        queue = ModelQueue(one_bucket, self._tenants)
        self._models[name] = ModelState(policy, bound or Bound(), queue, permits=self.permits)
        self.change(name, policy, bound)

    def model_ready(self, name: str, *devices: str, padded: bool) -> None:
        """The model is loaded, a copy on each of `devices`; `padded` says whether its forward computes padding."""
        model = self._models[name]
        model.devices, model.padded = devices, padded
        self._running.devices.update(devices)

    def change(self, name: str, policy: Policy, bound: Bound | None = None) -> None:
        """New values for one model; what waits stays and is served by them."""
        self._models[name].change(policy, bound or Bound())

    def pause(self, name: str, *, paused: bool) -> None:
        """Start nothing of one model (or do again); new work is still admitted up to the bound."""
        self._models[name].paused = paused

    def learn_size_from(self, name: str, size: int) -> None:
        """Learn the size of one model's batches anew, from `size` on."""
        self._models[name].learn_size_from(size)

    # Of forwards outside any batch: a self-test, a warm-up.

    def learn_memory(self, name: str, tokens: int, peak_mib: float) -> None:
        """One took so much memory for so many tokens."""
        self._models[name].needs.learn(tokens, peak_mib)

    def learn_costs(self, name: str, points: Sequence[tuple[int, float]]) -> None:
        """Tokens and seconds of each, before the first batch."""
        self._models[name].first.seed(points)

    def ran_out(self, name: str, tokens: int) -> None:
        """One of so many tokens did not fit into memory."""
        self._models[name].first.memory.ran_out(tokens)

    def has_room(self, name: str, mib: float) -> None:
        """A batch of one model may take so much of its device's memory."""
        self._models[name].first.room_mib = mib

    def fitting(self, name: str) -> float:
        """Most tokens in a batch of one model by memory; inf where nothing is known."""
        model = self._models[name]
        return model.first.fitting(model.policy)

    def safe_tokens(self, name: str) -> int | None:
        """The same by the device's memory, whatever the policy leaves of it; None where that is not known."""
        return self._models[name].first.safe_tokens()
