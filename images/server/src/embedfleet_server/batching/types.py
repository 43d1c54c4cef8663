"""The small values that pass between the parts of the core. Times are seconds on the driver's clock."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Policy:
    """How the batches of one model are formed."""

    max_batch_size: int = 32
    max_batch_tokens: int = 16384
    max_wait: float = 0.05
    dispatch_when_idle: bool = True
    sort_by_length: bool = True


@dataclass(frozen=True, slots=True)
class Bound:
    """Most inputs and tokens waiting; `None` is no bound."""

    inputs: int | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why work was not admitted. `retry_after` is None for what could never fit."""

    reason: str
    retry_after: float | None


@dataclass(slots=True, eq=False)
class Work:
    """One request's inputs, admitted together: `costs` in tokens, one a payload."""

    model: str
    payloads: Sequence[Any]
    costs: Sequence[int]
    handle: Any
    arrived: float
    number: int
    waiting: int = field(init=False)
    waiting_tokens: int = field(init=False)
    running: int = 0
    cancelled: bool = False

    def __post_init__(self) -> None:
        self.waiting = len(self.payloads)
        self.waiting_tokens = sum(self.costs)


Entry = tuple[int, int, Work, int]
"""One input in a queue: the number of its work (its age), its cost in tokens, its work, its index within the work."""


@dataclass(slots=True, eq=False)
class Batch:
    """Inputs of one model that share a forward; holds one permit until `complete`."""

    number: int
    model: str
    device: str
    entries: list[Entry]
    tokens: int
    """As the model computes them: padded where it pads."""
    formed: float

    def payloads(self) -> list[Any]:
        """The payloads, in the order of the rows that the forward has to give."""
        return [work.payloads[index] for _, _, work, index in self.entries]


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts of inputs since the start, and of what is under way.

    At every instant `submitted == completed + failed + cancelled + waiting + running`.
    """

    submitted: int
    completed: int
    failed: int
    cancelled: int
    refused: int
    waiting: int
    running: int
    batches: int
    active_batches: int
