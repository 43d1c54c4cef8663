"""The way of a batch: chosen and formed, then it ran, or it failed and its inputs are tried again."""

import math
from collections.abc import Iterable

from embedfleet_server.batching import policy as policies
from embedfleet_server.batching.intake import Intake
from embedfleet_server.batching.isolate import Held, plan
from embedfleet_server.batching.model import ModelState
from embedfleet_server.batching.types import Batch, Entry, Fault, Work


class Dispatch(Intake):
    """What is computed, and what becomes of it."""

    def next_batch(self, now: float) -> Batch | None:
        """The next batch to run, holding a permit; None when nothing may run yet (see `wake_at`)."""
        if self.paused or self._running.is_full:
            return None
        self._drop_expired(now)
        runnable = {name for name, model in self._models.items() if self._may_run(model, now)}
        held = self._held.due(now, runnable)
        if held is not None:
            return self._again(held, now)
        chosen = self._choose(now, runnable)
        return self._form(*chosen, now) if chosen is not None else None

    def wake_at(self, now: float) -> float | None:
        """The time at which something is due by the clock alone, or there is room for what is."""
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
        """The batch ran until `now`: its permit is free. `failed` of its rows gave no vector.

        `seconds` of compute and the memory it took at its peak teach what batches cost.
        """
        self._models[batch.model].ran(batch, seconds, peak_mib, failed, now)
        gone = self._leave(batch, now)
        self._ledger.failed += failed
        self._ledger.completed += len(batch.entries) - gone - failed

    def fail(self, batch: Batch, fault: Fault, now: float, cause: str = "") -> list[Entry]:
        """The batch failed: its permit is free. Returns the inputs that failed for good; the rest are tried again."""
        model = self._models[batch.model]
        model.failed(batch, fault, cause, now)
        self._leave(batch, now)
        follows = plan(batch, fault, self.retry)
        self._held.add(batch.model, follows, now, batch.device)
        for _, _, work, _ in (entry for group in follows.groups for entry in group):
            work.held += 1
            self._door.count(model, 1, 0)
            self._ledger.retried += 1
        self._ledger.failed += len(follows.failed)
        return follows.failed

    # Inside: which model is next, and on which device.

    def _may_run(self, model: ModelState, now: float) -> bool:
        return bool(self._devices(model, now))

    def _devices(self, model: ModelState, now: float, avoid: str = "") -> list[str]:
        """Those on which a batch of the model may start now, the best first."""
        return [device for device in self._running.free(model.devices, now, avoid) if model.may_start(device, now)]

    def _choose(self, now: float, runnable: Iterable[str]) -> tuple[str, str] | None:
        """The ready model that was served least, in tokens; of equals the one whose oldest work is oldest.

        With it the device: the least loaded of its own for which it is ready.
        """
        best, best_turn = None, (math.inf, 0)
        for name in runnable:
            model = self._models[name]
            oldest = model.queue.oldest() if model.queue.count else None
            if oldest is None or (turn := (self._turns.served(name), oldest.number)) > best_turn:
                continue
            devices = self._devices(model, now)
            device = next((device for device in devices if self._is_ready(model, device, oldest, now)), None)
            if device is not None:
                best, best_turn = (name, device), turn
        return best

    def _is_ready(self, model: ModelState, device: str, oldest: Work, now: float) -> bool:
        room, last = model.room(self.pressure, device), model.last_start
        return policies.is_ready(model.policy, room, model.queue, oldest, now, last_start=last)

    def _due(self, name: str, now: float) -> Iterable[float]:
        """When something of one model is due."""
        model = self._models[name]
        if model.paused:
            return
        if not self._devices(model, now):
            yield from self._openings(model, now) if model.load.inputs else ()
            return
        oldest = model.queue.oldest()
        if oldest is not None:
            yield policies.due_at(model.policy, oldest, now, last_start=model.last_start)
        yield from (held.not_before for held in self._held.all() if held.model == name)

    def _openings(self, model: ModelState, now: float) -> Iterable[float]:
        """When a device has room again, or the model is tried again on one that has."""
        for device in model.devices:
            breaker = model.breakers.get(device)
            opens = self._running.opens_at(device, now)
            if now < opens < math.inf:
                yield opens
            elif opens <= now and breaker is not None and (probe := breaker.wake_at()) is not None:
                yield probe

    def _drop_expired(self, now: float) -> None:
        """Nobody waits for these any more, though the driver's timer may not have said so yet."""
        for model in self._models.values():
            for work in model.queue.expired(now):
                self.cancel(work)

    # Inside: from inputs to a batch and back.

    def _form(self, name: str, device: str, now: float) -> Batch:
        model = self._models[name]
        entries = policies.form(
            model.policy, model.room(self.pressure, device), model.queue, now,
            padded=model.padded, start_tokens=model.on(device).known_cost.start_tokens(),
        )  # fmt: skip
        self._door.count(model, -len(entries), -sum(entry[1] for entry in entries))
        for entry in entries:
            self._door.shares.hold(entry[2].tenant, -1)
        batch = self._start(name, device, entries, now)
        self._turns.serve(name, batch.tokens)
        self._turns.leave(name, len(entries))
        return batch

    def _again(self, held: Held, now: float) -> Batch | None:
        """Start a group that failed before, without those of it whose callers are gone; elsewhere, if there is room."""
        for _, _, work, _ in held.entries:
            if work.deadline <= now:
                self.cancel(work)
        entries = [entry for entry in held.entries if not entry[2].cancelled]
        if not entries:
            return self.next_batch(now)
        for _, _, work, _ in entries:
            work.held -= 1
            work.running += 1
        model = self._models[held.model]
        self._door.count(model, -len(entries), 0)
        device = self._devices(model, now, avoid=held.device)[0]
        return self._start(held.model, device, entries, now, held.attempt, is_part=held.is_part)

    def _start(
        self, name: str, device: str, entries: list[Entry], now: float, attempt: int = 0, *, is_part: bool = False
    ) -> Batch:
        model = self._models[name]
        self._ledger.running += len(entries)
        self._ledger.batches += 1
        tokens = policies.computed_tokens(entries, padded=model.padded)
        expected = model.on(device).cost.seconds(tokens)
        batch = Batch(self._ledger.batches, name, device, entries, tokens, now, attempt, is_part, expected)
        self._running.start(batch)
        model.started(batch)
        return batch

    def _leave(self, batch: Batch, now: float) -> int:
        """Free permit and place; returns how many inputs were cancelled meanwhile, and counts them so."""
        gone = self._running.leave(batch, now)
        self._ledger.running -= len(batch.entries)
        self._ledger.cancelled += gone
        return gone
