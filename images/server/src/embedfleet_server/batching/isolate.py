"""What to do with a batch that failed: the same again after a back-off, or its halves, until the bad item is alone."""

import heapq
from dataclasses import dataclass, field

from embedfleet_server.batching.types import Batch, Entry, Fault, Retry

_LONGEST_BACKOFF = 60.0  # seconds


@dataclass(order=True, slots=True)
class Held:
    """Inputs that failed together and will be tried together again, not before a time."""

    not_before: float
    number: int
    model: str = field(compare=False)
    entries: list[Entry] = field(compare=False)
    attempt: int = field(compare=False)
    is_part: bool = field(compare=False)
    device: str = field(compare=False, default="")
    """Where they failed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What follows a failure: groups to try again after `delay`, or inputs that failed for good."""

    groups: list[list[Entry]]
    attempt: int
    delay: float
    failed: list[Entry]
    is_part: bool = True
    """Whether the groups are parts of the batch rather than all of it."""


def plan(batch: Batch, fault: Fault, retry: Retry) -> Plan:
    """Pure: what follows the failure of `batch`.

    A fault that may pass is retried `max_retries` times with exponential back-off. After that, and with one that will
    not pass, the batch is halved: of n inputs with one bad one, at most 2 log2(n) further forwards find it.
    """
    entries = [entry for entry in batch.entries if not entry[2].cancelled]
    if fault is Fault.TRANSIENT and batch.attempt < retry.max_retries:
        delay = min(_LONGEST_BACKOFF, retry.delay * 2**batch.attempt)
        return Plan([entries] if entries else [], batch.attempt + 1, delay, [], batch.is_part)
    if len(batch.entries) == 1:
        return Plan([], batch.attempt, 0.0, entries)
    middle = max(1, len(entries) // 2)  # one whose company was cancelled is tried alone before it is blamed
    halves = [half for half in (entries[:middle], entries[middle:]) if half]
    return Plan(halves, batch.attempt, 0.0, [])


class HeldBatches:
    """Groups waiting for another try, soonest first."""

    def __init__(self) -> None:
        self._heap: list[Held] = []
        self._numbers = 0

    def add(self, model: str, plan_: Plan, now: float, device: str = "") -> None:
        """Hold the groups of a plan, made for what failed on `device`."""
        for entries in plan_.groups:
            self._numbers += 1
            held = Held(now + plan_.delay, self._numbers, model, entries, plan_.attempt, plan_.is_part, device)
            heapq.heappush(self._heap, held)

    def due(self, now: float, runnable: "set[str]") -> Held | None:
        """Take the first group that is due and whose model can run."""
        for held in sorted(self._heap):
            if held.not_before > now:
                return None
            if held.model in runnable:
                self._heap.remove(held)
                heapq.heapify(self._heap)
                return held
        return None

    def all(self) -> list[Held]:
        """Every group held."""
        return sorted(self._heap)

    def __len__(self) -> int:
        return len(self._heap)
