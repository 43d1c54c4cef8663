"""The small values that pass between the parts of the core. Times are seconds on the driver's clock."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

LOWEST, LOW, NORMAL, HIGH, CRITICAL = 0, 64, 128, 192, 255
"""Names of some of the priorities 0-255."""


@dataclass(frozen=True, slots=True)
class Sizing:
    """The size is learnt, from `smallest` up to `max_batch_size`; a batch should take at most `target` seconds."""

    smallest: int = 1
    initial: int = 32
    target: float | None = None


@dataclass(frozen=True, slots=True)
class Breaking:
    """When the breaker of a model opens, and for how long."""

    window: int = 20
    """Last batches looked at: a second or so under load, so that an old fault does not count."""
    at_least: int = 10
    """Batches before a rate is one: a bad first batch or two may be the caller's fault."""
    error_rate: float = 0.5
    """Past it the model is at fault: where single inputs are, most batches have none of them, and halves go well."""
    delay: float = 5.0
    """Seconds before the first probe: longer than a hiccup, far below the 30 s a caller waits."""
    longest_delay: float = 60.0
    """Seconds: after the repair of a long fault, service is back within a minute."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How the batches of one model are formed."""

    enabled: bool = True
    max_batch_size: int = 32
    sizing: Sizing | None = None
    """None: batches of `max_batch_size`."""
    max_batch_mib: float | None = None
    """Most memory that a batch may be predicted to take on its device."""
    breaking: Breaking | None = None
    """None: a failing model is tried again and again."""
    max_batch_tokens: int = 16384
    max_wait: float = 0.05
    min_interval: float = 0.0
    dispatch_when_idle: bool = True
    sort_by_length: bool = True


@dataclass(frozen=True, slots=True)
class Room:
    """What one batch may hold at most."""

    inputs: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Retry:
    """What happens to a batch whose fault may pass."""

    max_retries: int = 3
    delay: float = 1.0


@dataclass(frozen=True, slots=True)
class Bound:
    """Most inputs and tokens waiting; `None` is no bound."""

    inputs: int | None = None
    tokens: int | None = None


class Fault(Enum):
    """Why a batch failed, as far as that decides what to do next."""

    TRANSIENT = "transient"
    """May pass: try the same batch again after a back-off."""
    PERMANENT = "permanent"
    """Will not pass: halve, until the item at fault is alone."""
    MEMORY = "memory"
    """Too large for the device: halve, and form smaller batches for a while."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why work was not admitted. `retry_after` is None for what could never fit."""

    reason: str
    retry_after: float | None
    failing: bool = False
    """It is not for want of room: the model fails."""


@dataclass(slots=True, eq=False)
class Work:
    """One request's inputs, admitted together: `costs` in tokens, one a payload."""

    model: str
    payloads: Sequence[Any]
    costs: Sequence[int]
    handle: Any
    arrived: float
    number: int
    priority: int = NORMAL
    tenant: str = ""
    deadline: float = math.inf
    expected: float = 0.0
    """Seconds until what stood before it would be computed, as things were when it came; 0 where that was not known."""
    waiting: int = field(init=False)
    waiting_tokens: int = field(init=False)
    held: int = 0
    """Of its inputs, those that failed and wait for another try; they are not in `waiting`."""
    running: int = 0
    cancelled: bool = False

    def __post_init__(self) -> None:
        self.waiting = len(self.payloads)
        self.waiting_tokens = sum(self.costs)


Entry = tuple[int, int, Work, int]
"""One input in a queue: the number of its work (its age), its cost in tokens, its work, its index within the work."""


@dataclass(slots=True, eq=False)
class Batch:
    """Inputs of one model that share a forward; holds one permit until `complete` or `fail`."""

    number: int
    model: str
    device: str
    entries: list[Entry]
    tokens: int
    """As the model computes them: padded where it pads."""
    formed: float
    attempt: int = 0
    """How often these inputs were tried before because of a fault that may pass."""
    is_part: bool = False
    """A part of a batch that failed before."""
    expected: float = 0.0
    """Seconds that it takes, by what batches before it took on this device; 0 where none ran."""
    began: float = math.inf
    """When its device began with it: as it was formed, or once the batch before it ended."""

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
    retried: int
    waiting: int
    running: int
    batches: int
    active_batches: int
