"""The batching core: reserve, submit, next_batch, complete. Pure: it never awaits, logs or reads a clock.

The driver tells it what happened and when; it answers what to do. One semaphore over all models: `next_batch` takes a
permit, `complete` gives it back. A device takes as many batches at once as it was said to.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from embedfleet_server.batching import policy as policies
from embedfleet_server.batching.admission import Load, admit, delay
from embedfleet_server.batching.cost import CostLine
from embedfleet_server.batching.queue import ModelQueue, length_bucket, one_bucket
from embedfleet_server.batching.types import Batch, Bound, Policy, Refusal, Stats, Work


@dataclass(slots=True)
class _Model:
    """What the core knows of one model."""

    policy: Policy
    bound: Bound
    queue: ModelQueue
    load: Load = field(default_factory=Load)
    device: str | None = None
    padded: bool = True
    cost: CostLine = field(default_factory=CostLine)
    served: float = 0.0
    """Tokens computed for this model; one that was idle is not owed what it did not ask for."""


@dataclass(slots=True)
class _Counts:
    submitted: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    refused: int = 0
    running: int = 0
    batches: int = 0


class BatchingCore:
    """Queues of several models, one bound over all of them, one semaphore."""

    def __init__(self, permits: int, bound: Bound, batches_per_device: int = 1) -> None:
        """`permits`: batches at once over all models; `batches_per_device`: of these, on one device."""
        self._permits = permits
        self._per_device = batches_per_device
        self._bound = bound
        self._load = Load()
        self._models: dict[str, _Model] = {}
        self._active: dict[int, Batch] = {}
        self._on_device: dict[str, int] = {}
        self._counts = _Counts()
        self._numbers = 0
        self._fair_floor = 0.0

    def add_model(self, name: str, policy: Policy, bound: Bound | None = None) -> None:
        """A queue for model `name`; nothing of it runs until `model_ready`."""
        self._models[name] = _Model(
            policy, bound or Bound(), ModelQueue(length_bucket if policy.sort_by_length else one_bucket)
        )

    def model_ready(self, name: str, device: str, *, padded: bool) -> None:
        """The model is loaded on `device`; `padded` says whether its forward computes padding."""
        model = self._models[name]
        model.device, model.padded = device, padded

    def reserve(self, name: str, inputs: int) -> Refusal | None:
        """Room for inputs whose tokens are not counted yet; `release` it before `submit`."""
        refusal = self._admit(self._models[name], inputs, 0)
        if refusal is None:
            self._reserve(name, inputs)
        return refusal

    def release(self, name: str, inputs: int) -> None:
        """Give back a reservation."""
        self._reserve(name, -inputs)

    def submit(
        self, name: str, payloads: Sequence[Any], costs: Sequence[int], handle: Any, now: float
    ) -> Work | Refusal:
        """Queue work whose reservation was just released: all of it, or nothing."""
        model = self._models[name]
        refusal = self._admit(model, len(payloads), sum(costs))
        if refusal is not None:
            return refusal
        self._numbers += 1
        work = Work(name, payloads, costs, handle, now, self._numbers)
        if not model.queue.count:
            model.served = max(model.served, self._fair_floor)
        model.queue.push(work)
        self._count(model)
        self._counts.submitted += len(payloads)
        return work

    def next_batch(self, now: float) -> Batch | None:
        """The next batch to run, holding a permit; None when nothing may run yet (see `wake_at`)."""
        if len(self._active) >= self._permits:
            return None
        chosen = self._choose(now)
        if chosen is None:
            return None
        return self._start(chosen, now)

    def wake_at(self) -> float | None:
        """The time at which a waiting input is due by the clock, if any can run on a device with room."""
        due = (
            oldest.arrived + model.policy.max_wait
            for model in self._models.values()
            if self._has_room(model) and (oldest := model.queue.oldest()) is not None
        )
        return min(due, default=None) if len(self._active) < self._permits else None

    def complete(self, batch: Batch, seconds: float | None = None, failed: int = 0) -> None:
        """The batch ended: its permit is free. `seconds` of compute teach the cost; `failed` rows gave no vector."""
        del self._active[batch.number]
        self._on_device[batch.device] -= 1
        if seconds is not None:
            self._models[batch.model].cost.learn(batch.tokens, seconds)
        gone = 0
        for _, _, work, _ in batch.entries:
            work.running -= 1
            gone += work.cancelled
        self._counts.running -= len(batch.entries)
        self._counts.cancelled += gone
        self._counts.failed += failed
        self._counts.completed += len(batch.entries) - gone - failed

    def cancel(self, work: Work, *, failed: bool = False) -> None:
        """Drop what still waits of a work (counted as failed, if so said); what already runs goes on for the others."""
        if work.cancelled:
            return
        work.cancelled = True
        model = self._models[work.model]
        if failed:
            self._counts.failed += work.waiting
        else:
            self._counts.cancelled += work.waiting
        model.queue.forget(work)
        self._count(model)

    def waiting_works(self) -> list[Work]:
        """Every work with an input still waiting, by model, oldest first."""
        return [work for model in self._models.values() for work in model.queue.works()]

    def queue_depth(self, name: str) -> int:
        """Inputs waiting for model `name`, those being tokenised included."""
        load = self._models[name].load
        return load.inputs + load.reserved

    @property
    def total_queue_depth(self) -> int:
        """Inputs waiting over all models."""
        return self._load.inputs + self._load.reserved

    @property
    def is_idle(self) -> bool:
        """Nothing waits and nothing runs."""
        return not self._active and self.total_queue_depth == 0

    def costs(self) -> Mapping[str, CostLine]:
        """What was learnt of each model's cost."""
        return {name: model.cost for name, model in self._models.items()}

    def retry_after(self) -> float:
        """Seconds until what waits now will have been computed."""
        return delay(self._backlog_seconds())

    def stats(self) -> Stats:
        """The counts, at this instant."""
        c = self._counts
        return Stats(
            c.submitted, c.completed, c.failed, c.cancelled, c.refused,
            self._load.inputs, c.running, c.batches, len(self._active),
        )  # fmt: skip

    def _choose(self, now: float) -> str | None:
        """The ready model that was served least, in tokens; of equals the one whose oldest work is oldest."""
        best, best_turn = None, (math.inf, 0)
        for name, model in self._models.items():
            oldest = model.queue.oldest() if self._has_room(model) else None
            if oldest is None or (turn := (model.served, oldest.number)) > best_turn:
                continue
            if self._is_ready(model, oldest, now):
                best, best_turn = name, turn
        return best

    def _is_ready(self, model: _Model, oldest: Work, now: float) -> bool:
        idle = model.device is not None and not self._on_device.get(model.device)
        return policies.is_ready(model.policy, model.queue, oldest.arrived, now, idle=idle)

    def _has_room(self, model: _Model) -> bool:
        return model.device is not None and self._on_device.get(model.device, 0) < self._per_device

    def _start(self, name: str, now: float) -> Batch:
        model = self._models[name]
        device = model.device or ""
        entries = policies.form(model.policy, model.queue, padded=model.padded, start_tokens=model.cost.start_tokens())
        for _, cost, work, _ in entries:
            work.waiting -= 1
            work.waiting_tokens -= cost
            work.running += 1
        self._count(model)
        self._counts.running += len(entries)
        self._counts.batches += 1
        batch = Batch(
            self._counts.batches, name, device, entries, policies.computed_tokens(entries, padded=model.padded), now
        )
        self._fair_floor, model.served = model.served, model.served + batch.tokens
        self._active[batch.number] = batch
        self._on_device[device] = self._on_device.get(device, 0) + 1
        return batch

    def _admit(self, model: _Model, inputs: int, tokens: int) -> Refusal | None:
        pairs = ((self._bound, self._load), (model.bound, model.load))
        refusal = admit(pairs, inputs, tokens, self._backlog_seconds())
        if refusal is not None:
            self._counts.refused += inputs
        return refusal

    def _reserve(self, name: str, inputs: int) -> None:
        self._models[name].load.reserved += inputs
        self._load.reserved += inputs

    def _count(self, model: _Model) -> None:
        """Bring the model's load, and with it the service's, in line with its queue."""
        load, queue = model.load, model.queue
        self._load.inputs += queue.count - load.inputs
        self._load.tokens += queue.tokens - load.tokens
        load.inputs, load.tokens = queue.count, queue.tokens

    def _backlog_seconds(self) -> float | None:
        """Seconds of work that waits, as far as speeds are known; None when no speed is."""
        known = [
            model.load.tokens / speed
            for model in self._models.values()
            if model.load.tokens and (speed := model.cost.tokens_per_second())
        ]
        return sum(known) if known else None
