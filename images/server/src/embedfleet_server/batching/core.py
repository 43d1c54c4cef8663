"""The batching core: reserve, submit, next_batch, complete or fail. Pure: it never awaits, logs or reads a clock.

The driver tells it what happened and when; it answers what to do. One semaphore over all models: `next_batch` takes a
permit, `complete` and `fail` give it back. A device takes as many batches at once as it was said to.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from embedfleet_server.batching import policy as policies
from embedfleet_server.batching.admission import Load, admit, delay
from embedfleet_server.batching.cost import CostLine
from embedfleet_server.batching.fairness import Accounts, Shares
from embedfleet_server.batching.flow import Bucket, length_bucket, one_bucket
from embedfleet_server.batching.isolate import Held, HeldBatches, plan
from embedfleet_server.batching.memory import MemoryBudget
from embedfleet_server.batching.pressure import Pressure
from embedfleet_server.batching.queue import ModelQueue
from embedfleet_server.batching.types import (
    NORMAL,
    Batch,
    Bound,
    Entry,
    Fault,
    Policy,
    Refusal,
    Retry,
    Stats,
    Work,
)


@dataclass(slots=True)
class _Model:
    """What the core knows of one model."""

    policy: Policy
    bound: Bound
    queue: ModelQueue
    load: Load = field(default_factory=Load)
    device: str | None = None
    padded: bool = True
    paused: bool = False
    last_start: float = -math.inf
    cost: CostLine = field(default_factory=CostLine)
    memory: MemoryBudget = field(default_factory=MemoryBudget)

    @property
    def bucket(self) -> Bucket:
        """How lengths share buckets: not at all where nothing is gained by it."""
        return length_bucket if self.policy.sort_by_length and self.policy.enabled else one_bucket


@dataclass(slots=True)
class _Counts:
    submitted: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    refused: int = 0
    retried: int = 0
    running: int = 0
    batches: int = 0


class BatchingCore:
    """Queues of several models, one bound over all of them, one semaphore."""

    def __init__(
        self,
        permits: int,
        bound: Bound,
        batches_per_device: int = 1,
        retry: Retry | None = None,
        *,
        prepared_per_device: int = 0,
    ) -> None:
        """`permits`: batches at once over all models; `batches_per_device`: of these, on one device.

        `prepared_per_device` of those on a device do not run yet but wait beside the others for their turn (0 or 1);
        such a place does not make the device idle, so only a full or overdue batch takes it.
        """
        self.permits = permits
        self.bound = bound
        self.retry = retry or Retry()
        self.paused = False
        self._per_device = batches_per_device
        self._prepared = prepared_per_device
        self._load = Load()
        self._models: dict[str, _Model] = {}
        self._turns = Accounts()
        self._tenants = Accounts()
        self._shares = Shares()
        self._held = HeldBatches()
        self.pressure = Pressure()
        self._active: dict[int, Batch] = {}
        self._on_device: dict[str, int] = {}
        self._counts = _Counts()
        self._numbers = 0

    # Models and their values, all of which may change while work waits.

    def add_model(self, name: str, policy: Policy, bound: Bound | None = None) -> None:
        """A queue for model `name`; nothing of it runs until `model_ready`."""
        self._models[name] = _Model(policy, bound or Bound(), ModelQueue(one_bucket, self._tenants))
        self.change(name, policy, bound)

    def model_ready(self, name: str, device: str, *, padded: bool) -> None:
        """The model is loaded on `device`; `padded` says whether its forward computes padding."""
        model = self._models[name]
        model.device, model.padded = device, padded

    def change(self, name: str, policy: Policy, bound: Bound | None = None) -> None:
        """New values for one model; what waits stays and is served by them."""
        model = self._models[name]
        model.policy, model.bound = policy, bound or Bound()
        model.queue.regroup(model.bucket)

    def pause(self, name: str, *, paused: bool) -> None:
        """Start nothing of one model (or do again); new work is still admitted up to the bound."""
        self._models[name].paused = paused

    # The way of a request: reserve, release and submit, then cancelled or batched.

    def is_paused(self, name: str) -> bool:
        """Whether nothing of one model is started."""
        return self._models[name].paused

    def reserve(self, name: str, inputs: int, now: float, *, tenant: str = "") -> Refusal | None:
        """Room for inputs whose tokens are not counted yet; `release` it before `submit`."""
        self._shares.seen(tenant, now)
        refusal = self.pressure.refusal() or self._admit(self._models[name], inputs, 0, tenant)
        if refusal is None:
            self._reserve(name, inputs, tenant)
        return refusal

    def release(self, name: str, inputs: int, *, tenant: str = "") -> None:
        """Give back a reservation."""
        self._reserve(name, -inputs, tenant)

    def submit(
        self,
        name: str,
        payloads: Sequence[Any],
        costs: Sequence[int],
        handle: Any,
        now: float,
        *,
        priority: int = NORMAL,
        tenant: str = "",
        deadline: float = math.inf,
    ) -> Work | Refusal:
        """Queue work whose reservation was just released: all of it, or nothing."""
        model = self._models[name]
        refusal = self._admit(model, len(payloads), sum(costs), tenant)
        if refusal is not None:
            return refusal
        self._numbers += 1
        work = Work(name, payloads, costs, handle, now, self._numbers, priority, tenant, deadline)
        if not work.waiting:
            return work
        model.queue.push(work, now)
        self._shares.hold(tenant, len(payloads))
        self._turns.arrive(name, len(payloads))
        self._count(model, len(payloads), work.waiting_tokens)
        self._counts.submitted += len(payloads)
        return work

    def cancel(self, work: Work, *, failed: bool = False) -> None:
        """Drop what still waits of a work (counted as failed, if so said); what already runs goes on for the others."""
        if work.cancelled:
            return
        work.cancelled = True
        self._ended(work.waiting + work.held, "failed" if failed else "cancelled")
        model = self._models[work.model]
        inputs, tokens = work.waiting, work.waiting_tokens
        self._shares.hold(work.tenant, -inputs)
        model.queue.forget(work)
        self._turns.leave(work.model, inputs) if inputs else None
        self._count(model, -inputs - work.held, -tokens)
        work.held = 0

    # The way of a batch: next_batch, then complete or fail.

    def next_batch(self, now: float) -> Batch | None:
        """The next batch to run, holding a permit; None when nothing may run yet (see `wake_at`)."""
        if self.paused or len(self._active) >= self.permits:
            return None
        runnable = {name for name, model in self._models.items() if self._may_run(model)}
        held = self._held.due(now, runnable)
        if held is not None:
            return self._again(held, now)
        name = self._choose(now, runnable)
        return self._form(name, now) if name is not None else None

    def wake_at(self, now: float) -> float | None:
        """The time at which something is due by the clock alone, on a device with room."""
        if self.paused or len(self._active) >= self.permits:
            return None
        due = [
            policies.due_at(model.policy, oldest, now, last_start=model.last_start)
            for model in self._models.values()
            if self._may_run(model) and (oldest := model.queue.oldest()) is not None
        ]
        held = [h.not_before for h in self._held.all() if self._may_run(self._models[h.model])]
        return min(due + held, default=None)

    def complete(self, batch: Batch, seconds: float | None = None, failed: int = 0) -> None:
        """The batch ran: its permit is free. `seconds` of compute teach the cost; `failed` rows gave no vector."""
        model = self._models[batch.model]
        if seconds is not None:
            model.cost.learn(batch.tokens, seconds)
        model.memory.went_well(model.policy.max_batch_tokens)
        gone = self._leave_device(batch)
        self._ended(gone, "cancelled")
        self._ended(failed, "failed")
        self._ended(len(batch.entries) - gone - failed, "completed")

    def fail(self, batch: Batch, fault: Fault, now: float) -> list[Entry]:
        """The batch failed: its permit is free. Returns the inputs that failed for good; the rest are tried again."""
        if fault is Fault.MEMORY:
            self._models[batch.model].memory.ran_out(batch.tokens)
        self._ended(self._leave_device(batch), "cancelled")
        follows = plan(batch, fault, self.retry)
        self._held.add(batch.model, follows, now)
        for _, _, work, _ in (entry for group in follows.groups for entry in group):
            work.held += 1
            self._count(self._models[batch.model], 1, 0)
            self._counts.retried += 1
        self._ended(len(follows.failed), "failed")
        return follows.failed

    # What can be asked.

    def waiting_works(self) -> list[Work]:
        """Every work with an input still waiting in a queue, by model, oldest first."""
        return [work for model in self._models.values() for work in model.queue.works()]

    def queue_depth(self, name: str) -> int:
        """Inputs waiting for model `name`, those being tokenised or to be tried again included."""
        load = self._models[name].load
        return load.inputs + load.reserved

    def oldest_waiting(self, name: str) -> float | None:
        """When the input of model `name` that waits longest arrived."""
        oldest = self._models[name].queue.oldest()
        return None if oldest is None else oldest.arrived

    def oldest_running(self, name: str) -> float | None:
        """When the batch of model `name` that runs longest was formed."""
        return min((batch.formed for batch in self._active.values() if batch.model == name), default=None)

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
            c.submitted, c.completed, c.failed, c.cancelled, c.refused, c.retried,
            self._load.inputs, c.running, c.batches, len(self._active),
        )  # fmt: skip

    # Inside.

    def _may_run(self, model: _Model) -> bool:
        on_device = self._on_device.get(model.device, 0) if model.device is not None else self._per_device
        return not model.paused and on_device < self._per_device

    def _choose(self, now: float, runnable: Iterable[str]) -> str | None:
        """The ready model that was served least, in tokens; of equals the one whose oldest work is oldest."""
        best, best_turn = None, (math.inf, 0)
        for name in runnable:
            model = self._models[name]
            oldest = model.queue.oldest() if model.queue.count else None
            if oldest is None or (turn := (self._turns.served(name), oldest.number)) > best_turn:
                continue
            if self._is_ready(model, oldest, now):
                best, best_turn = name, turn
        return best

    def _is_ready(self, model: _Model, oldest: Work, now: float) -> bool:
        idle = self._on_device.get(model.device or "", 0) < self._per_device - self._prepared
        return policies.is_ready(model.policy, model.queue, oldest, now, idle=idle, last_start=model.last_start)

    def _form(self, name: str, now: float) -> Batch:
        model = self._models[name]
        tokens = self.pressure.within(model.memory.within(model.policy.max_batch_tokens))
        policy = replace(model.policy, max_batch_tokens=tokens)
        entries = policies.form(policy, model.queue, now, padded=model.padded, start_tokens=model.cost.start_tokens())
        self._count(model, -len(entries), -sum(entry[1] for entry in entries))
        for entry in entries:
            self._shares.hold(entry[2].tenant, -1)
        batch = self._start(name, entries, now, 0)
        self._turns.serve(name, batch.tokens)
        self._turns.leave(name, len(entries))
        return batch

    def _again(self, held: Held, now: float) -> Batch | None:
        """Start a group that failed before, without those of it whose callers are gone."""
        entries = [entry for entry in held.entries if not entry[2].cancelled]
        if not entries:
            return self.next_batch(now)
        for _, _, work, _ in entries:
            work.held -= 1
            work.running += 1
        self._count(self._models[held.model], -len(entries), 0)
        return self._start(held.model, entries, now, held.attempt)

    def _start(self, name: str, entries: list[Entry], now: float, attempt: int) -> Batch:
        model = self._models[name]
        device = model.device or ""
        model.last_start = now
        self._counts.running += len(entries)
        self._counts.batches += 1
        tokens = policies.computed_tokens(entries, padded=model.padded)
        batch = Batch(self._counts.batches, name, device, entries, tokens, now, attempt)
        self._active[batch.number] = batch
        self._on_device[device] = self._on_device.get(device, 0) + 1
        return batch

    def _leave_device(self, batch: Batch) -> int:
        """Free permit and device; returns how many of the inputs were cancelled meanwhile."""
        del self._active[batch.number]
        self._on_device[batch.device] -= 1
        self._counts.running -= len(batch.entries)
        gone = 0
        for _, _, work, _ in batch.entries:
            work.running -= 1
            gone += work.cancelled
        return gone

    def _ended(self, inputs: int, how: str) -> None:
        setattr(self._counts, how, getattr(self._counts, how) + inputs)

    def _admit(self, model: _Model, inputs: int, tokens: int, tenant: str) -> Refusal | None:
        pairs = ((self.bound, self._load), (model.bound, model.load))
        backlog = self._backlog_seconds()
        refusal = admit(pairs, inputs, tokens, backlog)
        if refusal is None and self.bound.inputs is not None:
            refusal = self._shares.over(tenant, inputs, self.bound.inputs, delay(backlog))
        if refusal is not None:
            self._counts.refused += inputs
        return refusal

    def _reserve(self, name: str, inputs: int, tenant: str) -> None:
        self._models[name].load.reserved += inputs
        self._load.reserved += inputs
        self._shares.hold(tenant, inputs)

    def _count(self, model: _Model, inputs: int, tokens: int) -> None:
        """So many more (or fewer) wait, for this model and over all."""
        for load in (model.load, self._load):
            load.inputs += inputs
            load.tokens += tokens

    def _backlog_seconds(self) -> float | None:
        """Seconds of work that waits, as far as speeds are known; None when no speed is."""
        known = [
            model.load.tokens / speed
            for model in self._models.values()
            if model.load.tokens and (speed := model.cost.tokens_per_second())
        ]
        return sum(known) if known else None
