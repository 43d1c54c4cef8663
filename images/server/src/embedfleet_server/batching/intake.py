"""The way of a request: places reserved, then given back or taken up by work that waits; or it is cancelled."""

import math
from collections.abc import Sequence
from typing import Any

from embedfleet_server.batching.admission import delay
from embedfleet_server.batching.model import ModelState
from embedfleet_server.batching.roster import Roster
from embedfleet_server.batching.types import NORMAL, Refusal, Work


class Intake(Roster):
    """What comes in, and what leaves the queues without having been computed."""

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
        tokens = sum(costs)
        expected = model.expected(priority, tenant, tokens)
        refusal = self._admit(model, 0 if reserved else len(payloads), tokens, tenant)
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
