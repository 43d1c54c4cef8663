"""The batching core: reserve, submit, next_batch, complete or fail. Pure: it never awaits, logs or reads a clock.

The driver tells it what happened and when; it answers what to do. One semaphore over all models: `next_batch` takes a
permit, `complete` and `fail` give it back. A device takes as many batches at once as it was said to.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from embedfleet_server.batching import policy as policies
from embedfleet_server.batching.admission import delay
from embedfleet_server.batching.breaker import State as BreakerState
from embedfleet_server.batching.cost import CostLine
from embedfleet_server.batching.door import Door, backlog_seconds
from embedfleet_server.batching.fairness import Accounts
from embedfleet_server.batching.flow import one_bucket
from embedfleet_server.batching.isolate import Held, HeldBatches, plan
from embedfleet_server.batching.ledger import Ledger
from embedfleet_server.batching.model import ModelState
from embedfleet_server.batching.pressure import Pressure
from embedfleet_server.batching.queue import ModelQueue
from embedfleet_server.batching.running import Running
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
        self.retry = retry or Retry()
        self.paused = False
        self._running = Running(permits, batches_per_device, prepared_per_device)
        self._door = Door(bound)
        self._models: dict[str, ModelState] = {}
        self._turns = Accounts()
        self._tenants = Accounts()
        self._held = HeldBatches()
        self._ledger = Ledger()
        self._numbers = 0

    # Models and their values, all of which may change while work waits.

    @property
    def permits(self) -> int:
        """Most batches at once, over all models."""
        return self._running.permits

    @permits.setter
    def permits(self, permits: int) -> None:
        self._running.permits = permits

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
        self._models[name] = ModelState(policy, bound or Bound(), ModelQueue(one_bucket, self._tenants))
        self.change(name, policy, bound)

    def model_ready(self, name: str, device: str, *, padded: bool) -> None:
        """The model is loaded on `device`; `padded` says whether its forward computes padding."""
        model = self._models[name]
        model.device, model.padded = device, padded

    def change(self, name: str, policy: Policy, bound: Bound | None = None) -> None:
        """New values for one model; what waits stays and is served by them."""
        self._models[name].change(policy, bound or Bound())

    def pause(self, name: str, *, paused: bool) -> None:
        """Start nothing of one model (or do again); new work is still admitted up to the bound."""
        self._models[name].paused = paused

    def learn_size_from(self, name: str, size: int) -> None:
        """Learn the size of one model's batches anew, from `size` on."""
        self._models[name].learn_size_from(size)

    def learn_memory(self, name: str, tokens: int, peak_mib: float) -> None:
        """A forward outside any batch (a self-test, a warm-up) took so much memory for so many tokens."""
        self._models[name].needs.learn(tokens, peak_mib)

    # The way of a request: reserve, release and submit, then cancelled or batched.

    def reserve(self, name: str, inputs: int, now: float, *, tenant: str = "") -> Refusal | None:
        """Places for inputs whose tokens are not counted yet; `submit` takes them up, or `release` gives them back."""
        model = self._models[name]
        refusal = self._door.refusal(model, tenant, now)
        if refusal is not None:
            self._ledger.refused += inputs
            return refusal
        refusal = self._admit(model, inputs, 0, tenant)
        if refusal is None:
            self._door.reserve(model, inputs, tenant)
        return refusal

    def release(self, name: str, inputs: int, *, tenant: str = "") -> None:
        """Give back a reservation."""
        self._door.reserve(self._models[name], -inputs, tenant)

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
        within: float = math.inf,
        reserved: bool = False,
    ) -> Work | Refusal:
        """Queue work: all of it, or nothing. Where its places were `reserved`, only its tokens may not fit.

        At its `deadline` it is dropped. `within` is a deadline that its caller stated: work that would hardly be
        computed by then is refused, since to admit it is to compute it for nobody.
        """
        model = self._models[name]
        if reserved:
            self._door.reserve(model, -len(payloads), tenant)
        expected = model.expected(priority, tenant, sum(costs))
        refusal = self._admit(model, 0 if reserved else len(payloads), sum(costs), tenant)
        refusal = refusal or self._too_late(model, len(payloads), expected, within - now)
        if refusal is not None:
            return refusal
        self._numbers += 1
        work = Work(name, payloads, costs, handle, now, self._numbers, priority, tenant, deadline, expected)
        if not work.waiting:
            return work
        model.queue.push(work, now)
        self._door.shares.hold(tenant, len(payloads))
        self._turns.arrive(name, len(payloads))
        self._door.count(model, len(payloads), work.waiting_tokens)
        self._ledger.submitted += len(payloads)
        return work

    def cancel(self, work: Work, *, failed: bool = False) -> None:
        """Drop what still waits of a work (counted as failed, if so said); what already runs goes on for the others."""
        if work.cancelled:
            return
        work.cancelled = True
        gone = work.waiting + work.held
        self._ledger.failed += gone if failed else 0
        self._ledger.cancelled += 0 if failed else gone
        model = self._models[work.model]
        inputs, tokens = work.waiting, work.waiting_tokens
        self._door.shares.hold(work.tenant, -inputs)
        model.queue.forget(work)
        self._turns.leave(work.model, inputs) if inputs else None
        self._door.count(model, -gone, -tokens)
        work.held = 0

    # The way of a batch: next_batch, then complete or fail.

    def next_batch(self, now: float) -> Batch | None:
        """The next batch to run, holding a permit; None when nothing may run yet (see `wake_at`)."""
        if self.paused or self._running.is_full:
            return None
        self._drop_expired(now)
        runnable = {name for name, model in self._models.items() if self._may_run(model, now)}
        held = self._held.due(now, runnable)
        if held is not None:
            return self._again(held, now)
        name = self._choose(now, runnable)
        return self._form(name, now) if name is not None else None

    def wake_at(self, now: float) -> float | None:
        """The time at which something is due by the clock alone, on a device with room."""
        if self.paused or self._running.is_full:
            return None
        return min((due for model in self._models for due in self._due(model, now)), default=None)

    def complete(
        self,
        batch: Batch,
        seconds: float | None = None,
        failed: int = 0,
        *,
        peak_mib: float | None = None,
        now: float = 0.0,
    ) -> None:
        """The batch ran: its permit is free. `failed` of its rows gave no vector.

        `seconds` of compute and the memory it took at its peak teach what batches cost.
        """
        self._models[batch.model].ran(batch, seconds, peak_mib, failed, now)
        gone = self._leave(batch)
        self._ledger.failed += failed
        self._ledger.completed += len(batch.entries) - gone - failed

    def fail(self, batch: Batch, fault: Fault, now: float, cause: str = "") -> list[Entry]:
        """The batch failed: its permit is free. Returns the inputs that failed for good; the rest are tried again."""
        model = self._models[batch.model]
        model.failed(batch, fault, cause, now)
        self._leave(batch)
        follows = plan(batch, fault, self.retry)
        self._held.add(batch.model, follows, now)
        for _, _, work, _ in (entry for group in follows.groups for entry in group):
            work.held += 1
            self._door.count(model, 1, 0)
            self._ledger.retried += 1
        self._ledger.failed += len(follows.failed)
        return follows.failed

    # What can be asked.

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
        """Whether model `name` is refused for failing, and the cause of the last failure."""
        breaker = self._models[name].breaker
        return (BreakerState.CLOSED, "") if breaker is None else (breaker.state, breaker.cause)

    def oldest_waiting(self, name: str) -> float | None:
        """When the input of model `name` that waits longest arrived."""
        oldest = self._models[name].queue.oldest()
        return None if oldest is None else oldest.arrived

    def oldest_running(self, name: str) -> float | None:
        """When the batch of model `name` that runs longest was formed."""
        return self._running.oldest(name)

    @property
    def total_queue_depth(self) -> int:
        """Inputs waiting over all models."""
        return self._door.depth

    @property
    def is_idle(self) -> bool:
        """Nothing waits and nothing runs."""
        return not self._running and self.total_queue_depth == 0

    def costs(self) -> Mapping[str, CostLine]:
        """What was learnt of each model's cost."""
        return {name: model.cost for name, model in self._models.items()}

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

    # Inside: which model is next.

    def _may_run(self, model: ModelState, now: float) -> bool:
        return self._running.has_place(model.device) and model.may_start(now)

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

    def _is_ready(self, model: ModelState, oldest: Work, now: float) -> bool:
        idle = self._running.is_idle(model.device)
        room, last = model.room(self.pressure), model.last_start
        return policies.is_ready(model.policy, room, model.queue, oldest, now, idle=idle, last_start=last)

    def _due(self, name: str, now: float) -> Iterable[float]:
        """When something of one model is due."""
        model = self._models[name]
        if model.paused or not self._running.has_place(model.device):
            return
        if not model.may_start(now):
            probe = model.breaker.wake_at() if model.breaker is not None and model.load.inputs else None
            yield from () if probe is None else (probe,)
            return
        oldest = model.queue.oldest()
        if oldest is not None:
            yield policies.due_at(model.policy, oldest, now, last_start=model.last_start)
        yield from (held.not_before for held in self._held.all() if held.model == name)

    def _drop_expired(self, now: float) -> None:
        """Nobody waits for these any more, though the driver's timer may not have said so yet."""
        for model in self._models.values():
            for work in model.queue.expired(now):
                self.cancel(work)

    # Inside: from inputs to a batch and back.

    def _form(self, name: str, now: float) -> Batch:
        model = self._models[name]
        entries = policies.form(
            model.policy, model.room(self.pressure), model.queue, now,
            padded=model.padded, start_tokens=model.cost.start_tokens(),
        )  # fmt: skip
        self._door.count(model, -len(entries), -sum(entry[1] for entry in entries))
        for entry in entries:
            self._door.shares.hold(entry[2].tenant, -1)
        batch = self._start(name, entries, now)
        self._turns.serve(name, batch.tokens)
        self._turns.leave(name, len(entries))
        return batch

    def _again(self, held: Held, now: float) -> Batch | None:
        """Start a group that failed before, without those of it whose callers are gone."""
        for _, _, work, _ in held.entries:
            if work.deadline <= now:
                self.cancel(work)
        entries = [entry for entry in held.entries if not entry[2].cancelled]
        if not entries:
            return self.next_batch(now)
        for _, _, work, _ in entries:
            work.held -= 1
            work.running += 1
        self._door.count(self._models[held.model], -len(entries), 0)
        return self._start(held.model, entries, now, held.attempt, is_part=held.is_part)

    def _start(self, name: str, entries: list[Entry], now: float, attempt: int = 0, *, is_part: bool = False) -> Batch:
        model = self._models[name]
        self._ledger.running += len(entries)
        self._ledger.batches += 1
        tokens = policies.computed_tokens(entries, padded=model.padded)
        batch = Batch(self._ledger.batches, name, model.device or "", entries, tokens, now, attempt, is_part)
        self._running.start(batch)
        model.started(batch)
        return batch

    def _leave(self, batch: Batch) -> int:
        """Free permit and place; returns how many inputs were cancelled meanwhile, and counts them so."""
        gone = self._running.leave(batch)
        self._ledger.running -= len(batch.entries)
        self._ledger.cancelled += gone
        return gone

    def _too_late(self, model: ModelState, inputs: int, expected: float, left: float) -> Refusal | None:
        expected *= model.spread.ratio
        if not expected or expected <= left:
            return None
        self._ledger.refused += inputs
        reason = f"what is before it takes up to {expected:.1f} s and its time is up in {left:.1f} s"
        return Refusal(reason, delay(expected - left))

    def _admit(self, model: ModelState, inputs: int, tokens: int, tenant: str) -> Refusal | None:
        refusal = self._door.admit(model, inputs, tokens, tenant, self._models.values())
        if refusal is not None:
            self._ledger.refused += inputs
        return refusal
