"""The door of the queues: who comes in, and how much waits behind it."""

from collections.abc import Collection
from dataclasses import dataclass, field

from embedfleet_server.batching.admission import Load, admit, delay
from embedfleet_server.batching.fairness import Shares
from embedfleet_server.batching.model import ModelState
from embedfleet_server.batching.pressure import Pressure
from embedfleet_server.batching.types import Bound, Refusal


@dataclass(slots=True)
class Door:
    """One bound over all models, and a part of it for each tenant."""

    bound: Bound
    pressure: Pressure = field(default_factory=Pressure)
    shares: Shares = field(default_factory=Shares)
    load: Load = field(default_factory=Load)

    def refusal(self, model: ModelState, tenant: str, now: float) -> Refusal | None:
        """Why nothing comes in for this model now, however little it is."""
        self.shares.seen(tenant, now)
        return model.refusal(now) or self.pressure.refusal()

    def admit(
        self, model: ModelState, inputs: int, tokens: int, tenant: str, models: Collection[ModelState]
    ) -> Refusal | None:
        """Why so much does not come in, if so; all of it or nothing. `models` tell how long what waits will take."""
        if self._judged(model, inputs, tokens, tenant, None) is None:
            return None
        return self._judged(model, inputs, tokens, tenant, backlog_seconds(models))

    def _judged(
        self, model: ModelState, inputs: int, tokens: int, tenant: str, backlog: float | None
    ) -> Refusal | None:
        refusal = admit(((self.bound, self.load), (model.bound, model.load)), inputs, tokens, backlog)
        if refusal is None and inputs and self.bound.inputs is not None:
            refusal = self.shares.over(tenant, inputs, self.bound.inputs, delay(backlog))
        return refusal

    def reserve(self, model: ModelState, inputs: int, tenant: str) -> None:
        """So many more (or fewer) places are taken by inputs that are not counted in tokens yet."""
        model.load.reserved += inputs
        self.load.reserved += inputs
        self.shares.hold(tenant, inputs)

    def count(self, model: ModelState, inputs: int, tokens: int) -> None:
        """So many more (or fewer) wait, for this model and over all."""
        for load in (model.load, self.load):
            load.inputs += inputs
            load.tokens += tokens

    @property
    def depth(self) -> int:
        """Inputs that wait, over all models."""
        return self.load.inputs + self.load.reserved


def backlog_seconds(models: Collection[ModelState]) -> float | None:
    """Seconds of work that waits, as far as speeds are known; None when no speed is."""
    known = [
        model.load.tokens / speed for model in models if model.load.tokens and (speed := model.tokens_per_second())
    ]
    return sum(known) if known else None
