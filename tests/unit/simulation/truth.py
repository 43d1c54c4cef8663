"""What the simulated world knows of itself, written down without asking the engine: the measure of its answers."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from embedfleet.api import Batching, BatchingSettings
from embedfleet_server.engine.faults import OutOfMemory, TransientError
from embedfleet_server.engine.protocols import Rows
from tests.unit.simulation.plan import FIRST_IDENTITY, NAN, QUERY, Change, ModelPlan, Plan, Request

DIMENSIONS = 4
_LONGEST_BACKOFF, _FIRST_LOAD_BACKOFF = 60.0, 10.0
QUIET_SPELL = 20  # batches without a failure, after which a budget cut by out-of-memory grows

Text = Sequence[int]


def identity_of(text: Text) -> int | None:
    """The token that names this text among all of its world; None for the self-test's."""
    return next((token for token in text if token >= FIRST_IDENTITY), None)


def row_of(text: Text) -> Rows:
    """The simulated model's row: whole numbers that tell every text of a world from every other."""
    weighed = sum(place * token for place, token in enumerate(text, 1)) % 65536
    return np.array([identity_of(text) or 0, len(text), sum(text) % 65536, weighed], np.float32)


def tokens_due(request: Request) -> list[tuple[int, ...]]:
    """The tokens that the model has to see for each text of a request."""
    prompt = (QUERY,) if request.input_type == "query" else ()
    return [(*prompt, *text) for text in request.texts]


@dataclass(slots=True)
class ItemTruth:
    """One text: where it stands, as the device saw it."""

    request: int
    length: int
    order: int
    encoded_at: float
    state: Literal["waiting", "running", "again", "done", "failed"] = "waiting"
    attempt: int = 0
    due: float = 0.0
    """Not sooner than this is it to be tried again."""
    due_latest: float = math.inf
    """At this time it is to be tried again, once its device is free."""


@dataclass(slots=True)
class Memory:
    """What an out-of-memory of one model asks of its next batches."""

    tokens: int
    passed_since: int = 0


class Truth:
    """The world's own account."""

    def __init__(self, plan: Plan, time: Callable[[], float]) -> None:
        self.plan, self.time = plan, time
        self.requests = {request.number: request for request in plan.requests}
        self.items: dict[int, ItemTruth] = {}
        self.asked: dict[int, float] = {}
        self.ended: dict[int, float] = {}
        self.cancelled: set[int] = set()
        self.load_failures: Counter[str] = Counter()
        self.bad_forwards: Counter[str] = Counter()
        """Forwards that gave no vector at all, but for want of memory."""
        self.load_not_before: dict[str, float] = {}
        self.served: Counter[str] = Counter()
        """Tokens that began to be computed, by tenant."""
        self.running: Counter[str] = Counter()
        """Forwards by device."""
        self.tokens: Counter[str] = Counter()
        """Tokens computed to the end, by device."""
        self.forwards = self.cut_off = 0
        self.starts: dict[str, float] = {}
        self.memory: dict[tuple[str, str], Memory] = {}
        """By model and device."""
        self.stopping: float | None = None
        self.history: list[tuple[float, BatchingSettings]] = [(-1.0, plan.settings)]
        self._paused_at: dict[str, float] = {}
        self._by_hand: set[str] = set()
        self._update_paused()

    # Settings.

    @property
    def settings(self) -> BatchingSettings:
        return self.history[-1][1]

    def in_force(self) -> list[BatchingSettings]:
        """Settings that held at some moment of this very instant."""
        now = self.time()
        before = max(index for index, (at, _) in enumerate(self.history) if at < now)
        return [settings for _, settings in self.history[before:]]

    def of(self, model: str) -> list[Batching]:
        """One model's values in force at this instant."""
        return [settings.for_model(model) for settings in self.in_force()]

    def changed(self, change: Change) -> None:
        if change.settings is not None:
            self.history.append((self.time(), change.settings))
        else:
            names = [m.name for m in self.plan.models] if change.model is None else [change.model]
            for name in names:
                (self._by_hand.add if change.paused else self._by_hand.discard)(name)
        self._update_paused()

    def is_paused(self, model: str) -> bool:
        return model in self._paused_at

    def was_paused_before(self, model: str) -> bool:
        """Paused, and already so before this instant."""
        return self._paused_at.get(model, math.inf) < self.time()

    def _update_paused(self) -> None:
        for model in self.plan.models:
            if model.name in self._by_hand or self.settings.for_model(model.name).paused:
                self._paused_at.setdefault(model.name, self.time() if self.asked else -1.0)
            else:
                self._paused_at.pop(model.name, None)

    # Requests.

    def request_of(self, identity: int) -> Request:
        return self.requests[(identity - FIRST_IDENTITY) // 16]

    def encoded(self, texts: Sequence[Text]) -> None:
        for text in texts:
            identity = identity_of(text)
            if identity is not None:
                number = self.request_of(identity).number
                self.items.setdefault(identity, ItemTruth(number, len(text), len(self.items), self.time()))

    def is_wanted(self, item: ItemTruth) -> bool:
        return item.request not in self.ended

    def stop_begins(self) -> None:
        self.stopping = self.time()

    def load_failed(self, model: ModelPlan) -> None:
        self.load_not_before[model.name] = self.time() + _FIRST_LOAD_BACKOFF * 2 ** self.load_failures[model.name]
        self.load_failures[model.name] += 1

    # Forwards.

    def forward_started(self, model: ModelPlan, device: str, texts: Sequence[Text]) -> None:
        self.forwards += 1
        self.running[device] += 1
        self.starts[model.name] = self.time()
        for item in self.of_texts(texts):
            item.state = "running"
            self.served[self.requests[item.request].tenant] += item.length

    def forward_ended(self, model: ModelPlan, device: str, texts: Sequence[Text]) -> None:
        self.running[device] -= 1
        if any(item.state == "running" for item in self.of_texts(texts)):
            self.cut_off += 1
            self.bad_forwards[model.name] += 1

    def may_be_failing(self, model: str) -> bool:
        """A breaker opens when more than half of at least ten batches failed."""
        return self.bad_forwards[model] > 5

    def forward_passed(self, model: ModelPlan, device: str, texts: Sequence[Text]) -> None:
        self.tokens[device] += computed(model, texts)
        self.bad_forwards[model.name] += all(NAN in text for text in texts)
        for item in self.of_texts(texts):
            item.state = "done"
        if (model.name, device) in self.memory:
            self.memory[model.name, device].passed_since += 1

    def forward_failed(self, model: ModelPlan, device: str, texts: Sequence[Text], error: Exception) -> None:
        if isinstance(error, OutOfMemory | MemoryError):
            self.ran_out(model, device, texts)
        else:
            self.bad_forwards[model.name] += 1
        passing = isinstance(error, TransientError | OSError | TimeoutError)
        for item in self.of_texts(texts):
            self._plan_again(item, passing=passing, alone=len(texts) == 1)

    def ran_out(self, model: ModelPlan, device: str, texts: Sequence[Text]) -> None:
        """A forward of these did not fit into the device's memory."""
        half = max(1, computed(model, texts) // 2)
        known = self.memory.get((model.name, device))
        if known is not None and known.passed_since < QUIET_SPELL:
            half = min(half, known.tokens)
        self.memory[model.name, device] = Memory(half)

    def of_texts(self, texts: Sequence[Text]) -> list[ItemTruth]:
        return [self.items[identity] for text in texts if (identity := identity_of(text)) is not None]

    def _plan_again(self, item: ItemTruth, *, passing: bool, alone: bool) -> None:
        """When the text is to be tried again: after a back-off, at once as part of a half, or never."""
        now = self.time()
        waits = [_back_off(settings.batching, item.attempt) if passing else None for settings in self.in_force()]
        known = [wait for wait in waits if wait is not None]
        item.due, item.due_latest = now + (min(known) if len(known) == len(waits) else 0.0), now + max([0.0, *known])
        item.attempt += bool(known)
        item.state = "failed" if alone and not known else "again"


def computed(model: ModelPlan, texts: Sequence[Text]) -> int:
    """Tokens the model computes for these texts."""
    return max(map(len, texts)) * len(texts) if model.padded else sum(map(len, texts))


def _back_off(batching: Batching, attempt: int) -> float | None:
    if attempt >= batching.max_retries:
        return None
    return min(_LONGEST_BACKOFF, batching.retry_delay_milliseconds / 1000 * (1 << attempt))
