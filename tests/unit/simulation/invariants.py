"""What must hold in every world at every step, whatever happens in it."""

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from embedfleet.api import Batching
from embedfleet_server.batching.queue import SECONDS_PER_LEVEL, ModelQueue
from embedfleet_server.batching.types import CRITICAL
from embedfleet_server.engine import Answer
from embedfleet_server.engine.engine import Engine
from embedfleet_server.engine.errors import (
    DeadlineExceeded,
    InvalidRequest,
    ModelFailing,
    ModelLoadFailed,
    ModelLoading,
    QueueFull,
    ShuttingDown,
    Stopped,
    TooLarge,
    TooLate,
)
from embedfleet_server.engine.policies import AHEAD
from embedfleet_server.engine.report import DrainReport
from tests.unit.simulation.ceiling import Ceiling
from tests.unit.simulation.plan import BLIP, NAN, ROW_FAULTS, ModelPlan, Request
from tests.unit.simulation.truth import QUIET_SPELL, ItemTruth, Text, Truth, computed, identity_of, row_of, tokens_due

_EXACT = 1e-9
_SPINNING = 2000  # turns of the loop at one instant; no world takes so many


class Broken(AssertionError):
    """An invariant does not hold."""


@dataclass(slots=True)
class Tally:
    """Outcomes, in inputs."""

    good: int = 0
    bad: int = 0
    lost: int = 0
    """Accepted, perhaps, and then left by its caller or told that time ran out."""
    stopped_requests: int = 0
    answered_since_stop: int = 0


@dataclass(slots=True)
class Asked:
    """What is to be expected of one call."""

    limit: float
    fits: bool


@dataclass(slots=True)
class Watch:
    """Sees every event of a world and raises `Broken`, from the loop itself, at the first that must not be."""

    truth: Truth
    engine: Engine
    broken: list[str] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    asked_: dict[int, Asked] = field(default_factory=dict)
    ceilings: dict[str, Ceiling] = field(default_factory=dict)
    order: dict[tuple[object, ...], int] = field(default_factory=dict)
    loading: set[str] = field(default_factory=set)
    left_aside: dict[str, float] = field(default_factory=dict)
    """When a device last ended what was no batch."""
    turns: tuple[float, int] = (0.0, 0)
    """Turns that the loop has taken at this instant."""

    def __post_init__(self) -> None:
        self.changed()

    def need(self, holds: object, why: str) -> None:
        """`why` is what is wrong when it does not hold."""
        if not holds:
            self.broken.append(f"at {self.truth.time():.6f} s: {why}")

    # At every step of the loop.

    def step(self) -> None:
        """The counts add up, no bound is passed, and the loop does not spin."""
        core, now = self.engine._core, self.truth.time()
        self.turns = (now, self.turns[1] + 1 if self.turns[0] == now else 0)
        self.need(self.turns[1] < _SPINNING, "the loop spins")
        s = core.stats()
        parts = (s.completed, s.failed, s.cancelled, s.waiting, s.running)
        self.need(s.submitted == sum(parts) and min(parts) >= 0, f"counts do not add up: {s}")
        active = list(core._running._active.values())
        self.need(s.running == sum(len(batch.entries) for batch in active), "running inputs are not those of batches")
        self.need(s.active_batches == len(active), "active batches are not counted")
        self.need(max(Counter(batch.device for batch in active).values(), default=0) <= 2, "a third batch on a device")
        began = Counter(batch.device for batch in active if batch.began < math.inf)
        self.need(max(began.values(), default=0) <= 1, "two batches of one device are taken to run")
        told = {name: batches for name, batches in core.devices().items() if batches}
        self.need(told == Counter(batch.device for batch in active), f"batches of devices are told as {told}")
        for name, value, bound in self._bounded():
            self.need(not self.ceilings[name].passed(value, bound), f"{name} is {value}, the bound {bound}")
        if self.broken:
            raise Broken("\n".join(self.broken))

    def changed(self) -> None:
        """Bounds may have changed just now."""
        for name, value, bound in self._bounded():
            self.ceilings.setdefault(name, Ceiling()).lower(value, bound)

    def _bounded(self) -> list[tuple[str, int, int | None]]:
        """Everything that has a bound: what it is now, and the bound in the settings."""
        core, settings = self.engine._core, self.truth.settings
        whole = settings.batching
        held = _held(self.engine) if len(core._held) else Counter()
        places = core.total_queue_depth - sum(held.values())
        found = [
            ("permits", core.stats().active_batches, whole.max_concurrent_batches),
            ("waiting inputs", places, whole.max_queued_requests),
            ("waiting tokens", core._door.load.tokens, whole.max_queued_tokens),
        ]
        for name, own in settings.models.items():
            found.append((f"inputs of {name}", core.queue_depth(name) - held[name], own.max_queued_requests))
            found.append((f"tokens of {name}", core._models[name].load.tokens, own.max_queued_tokens))
        return found

    # When nothing is left to do at this instant.

    def quiet(self, until: float) -> None:
        """What is counted is there, and nothing waits that could run before `until`, when the next thing happens."""
        core = self.engine._core
        held = _held(self.engine)
        for name, model in core._models.items():
            self._recount(name, model.queue)
            self.need(model.load.inputs == model.queue.count + held[name], f"{name}: waiting inputs miscounted")
            self.need(model.load.tokens == model.queue.tokens, f"{name}: waiting tokens miscounted")
        queued = sum(model.queue.count for model in core._models.values())
        self.need(
            sum(core._door.shares._held.values()) == queued + core._door.load.reserved, "places of tenants miscounted"
        )
        self.need(sum(core._tenants._waiting.values()) == queued, "waiting of tenants miscounted")
        self.need(sum(core._turns._waiting.values()) == queued, "waiting of models miscounted")
        self.need(sum(self.truth.running.values()) == core.stats().active_batches, "a permit is held by no forward")
        for plan in self.truth.plan.models:
            self._could_run(plan, until)
        self.step()

    def _recount(self, name: str, queue: ModelQueue) -> None:
        """Entries of the queue, one by one."""
        inputs = tokens = 0
        for flow in queue._flows():
            alive = [entry for bucket in flow._buckets.values() for entry in bucket if not entry[2].cancelled]
            self.need(flow.count == len(alive), f"{name}: a flow counts {flow.count} of {len(alive)}")
            inputs, tokens = inputs + len(alive), tokens + sum(entry[1] for entry in alive)
        self.need((queue.count, queue.tokens) == (inputs, tokens), f"{name}: the queue is miscounted")

    def _could_run(self, plan: ModelPlan, until: float) -> None:
        """No wake-up is lost, no device idles: with any of its devices and a permit free, what is ready has started."""
        truth, name = self.truth, plan.name
        permits = truth.settings.batching.max_concurrent_batches
        loaded = self.engine.info(name) is not None
        idle = sum(not batches for batches in self.engine._core.devices().values())
        may_spare = permits - sum(truth.running.values()) > idle
        free = [
            device
            for device in plan.devices
            if self._opens_at(device) < until - _EXACT and (may_spare or not truth.running[device])
        ]
        if not free or truth.is_paused(name) or not loaded:
            return
        if sum(truth.running.values()) >= permits:
            return
        if all(self._is_refused(name, device, until) for device in free):
            return
        late = [i for i, item in truth.items.items() if item.state == "again" and item.due_latest < until - _EXACT]
        late = [i for i in late if truth.request_of(i).model == name and truth.is_wanted(truth.items[i])]
        self.need(not late, f"{late} could be tried again and are not")
        queue = self.engine._core._models[name].queue
        oldest = queue.oldest()
        if oldest is not None:
            spaced = until > truth.starts.get(name, -math.inf) + _interval(truth.settings.for_model(name)) + _EXACT
            ready = _is_ready(truth.settings.for_model(name), queue, until - oldest.arrived, spaced=spaced)
            self.need(not ready, f"{queue.count} inputs of {name} could run and do not")

    def _opens_at(self, device: str) -> float:
        """When a device may be given one more batch: idle, now; a little before the end expected of what it runs."""
        core = self.engine._core
        active = [batch for batch in core._running._active.values() if batch.device == device]
        if not self.truth.running[device]:
            return -math.inf
        expected = active[0].expected
        is_overdue = self.truth.time() > active[0].began + expected + max(AHEAD, expected) - _EXACT
        if self.truth.running[device] > 1 or not expected or is_overdue:
            return math.inf
        return active[0].began + expected - max(min(AHEAD, expected / 2), 0.05 * expected)

    def _is_refused(self, name: str, device: str, until: float) -> bool:
        """Whether its breaker there is open until then, or a probe runs: only after many forwards failed."""
        breaker = self.engine._core._models[name].breakers.get(device)
        probe = breaker.wake_at() if breaker is not None else None
        self.need(probe is None or self.truth.may_be_failing(name), f"{name} is refused without a cause")
        is_probed = breaker is not None and probe is None and not breaker.may_start(until)
        return is_probed or (probe is not None and until <= probe + _EXACT)

    # When a load or a forward starts.

    def warm_up_starts(self, model: ModelPlan, device: str, texts: Sequence[Text]) -> None:
        """Before the model is ready, while there is nothing else to do, and with what a batch may hold."""
        truth, name = self.truth, model.name
        self.need(truth.plan.warm_up and not model.lazy, f"{name} is measured though nobody wanted it")
        self.need(self.engine.info(name) is None, f"{name} is measured when it serves already")
        self.need(self.engine._core.is_idle, f"{name} is measured while callers wait")
        memory = truth.memory.get((name, device))
        self.need(memory is None or computed(model, texts) <= memory.tokens, f"{name} is measured beyond its memory")
        fits = any(
            len(texts) <= b.largest_batch and (len(texts) == 1 or computed(model, texts) <= b.max_batch_tokens)
            for b in (settings.for_model(name) for _, settings in truth.history)
        )
        self.need(fits, f"{name} is measured with {len(texts)} texts of {len(texts[0])}")

    def load_starts(self, model: ModelPlan) -> None:
        """Once, when it is wanted, and after a failure not before its back-off is over."""
        truth = self.truth
        self.need(model.name not in self.loading and not self.engine.info(model.name), f"{model.name} is loaded twice")
        wanted = {truth.requests[number].model for number in truth.asked}
        self.need(not model.lazy or model.name in wanted, f"{model.name} is loaded though nobody asked")
        early = truth.time() < truth.load_not_before.get(model.name, 0.0) - _EXACT
        self.need(not early, f"{model.name} is loaded again too soon")
        self.loading.add(model.name)

    def load_ended(self, model: ModelPlan) -> None:
        """With a model, with an error, or cut off."""
        self.loading.discard(model.name)

    def forward_starts(self, model: ModelPlan, device: str, texts: Sequence[Text]) -> None:
        """A batch is one that may run now, of texts that may run now, in their order."""
        truth = self.truth
        items = [item for text in texts if (item := truth.items.get(identity_of(text) or 0)) is not None]
        self.need(len(items) == len({id(item) for item in items}) == len(texts), "a batch has unknown or doubled texts")
        self.need(device in model.devices, f"{model.name} is not on {device}")
        self.need(truth.time() >= self._opens_at(device) - _EXACT, f"a batch for {device} long before it is idle")
        permits = max(settings.batching.max_concurrent_batches for settings in truth.in_force())
        permits_were = self.ceilings["permits"].allowed
        self.need(sum(truth.running.values()) < max(permits, permits_were), "more forwards than permits")
        self.need(not truth.was_paused_before(model.name), f"{model.name} is paused")
        for item in items:
            self._may_start(model, item)
        if all(item.state == "waiting" for item in items):
            self._is_well_formed(model, device, texts, items)
        else:
            self.need(all(item.state == "again" for item in items), "what failed shares a batch with what did not")
        truth.forward_started(model, device, texts)

    def device_begins(self, device: str, texts: Sequence[Text]) -> None:
        """The core knows since when a batch runs, unless a load's self-test or warm-up stood before it."""
        active = self.engine._core._running._active.values()
        (began,) = (batch.began for batch in active if batch.payloads()[0].token_ids is texts[0])
        aside = self.left_aside.get(device) == self.truth.time() > began
        self.need(aside or began == self.truth.time(), f"a batch runs on {device} that is taken to run since {began}")

    def _may_start(self, model: ModelPlan, item: ItemTruth) -> None:
        truth = self.truth
        request, now = truth.requests[item.request], truth.time()
        self.need(request.model == model.name, f"a text for {request.model} in a batch of {model.name}")
        self.need(item.state in ("waiting", "again"), f"a text that is {item.state} is computed")
        self.need(
            truth.ended.get(item.request, now) >= now, f"request {item.request} is computed for a caller who is gone"
        )
        self.need(now < self._deadline(request), f"request {item.request} is computed though its time is up")
        self.need(item.state != "again" or now >= item.due - _EXACT, "tried again before the back-off is over")
        if truth.plan.kind != "faulty":
            key = (model.name, request.tenant, request.priority, item.length)
            self.need(self.order.get(key, -1) < item.order, f"request {item.request} out of its order")
            self.order[key] = item.order

    def _is_well_formed(self, model: ModelPlan, device: str, texts: Sequence[Text], items: Sequence[ItemTruth]) -> None:
        """A batch of fresh texts keeps the limits of settings that held at this instant."""
        in_force = self.truth.of(model.name)
        tokens, requests = computed(model, texts), {item.request for item in items}
        fits = any(
            len(texts) <= b.largest_batch
            and (len(texts) == 1 or self._tokens_fit(tokens, sum(map(len, texts)), b))
            and (b.enabled or len(requests) == 1)
            for b in in_force
        )
        self.need(fits, f"a batch of {len(texts)} inputs, {tokens} tokens, {len(requests)} requests is over the limits")
        memory = self.truth.memory.get((model.name, device))
        if memory is not None and memory.passed_since < QUIET_SPELL and len(texts) > 1:
            self.need(tokens <= memory.tokens, f"{tokens} tokens after memory ran out at twice {memory.tokens}")
        self._is_whose_turn_it_is(model, items)
        spaced = self.truth.time() >= self.truth.starts.get(model.name, -math.inf) + min(map(_interval, in_force))
        self.need(spaced or self._has_waited(model, in_force), f"batches of {model.name} follow one another too soon")

    def _is_whose_turn_it_is(self, model: ModelPlan, items: Sequence[ItemTruth]) -> None:
        """The highest priority, unless another may have risen over it by now; of several tenants each in its turn."""
        truth, kind = self.truth, self.truth.plan.kind
        if kind == "overload" or (kind != "shared" and "priority" not in truth.plan.habits):
            return
        waiting = [truth.requests[item.request] for item in truth.items.values() if self._waits(model, item)]
        highest = max((request.priority for request in waiting), default=0)
        taken = max(truth.requests[item.request].priority for item in items)
        risen = truth.time() >= (highest - taken) * SECONDS_PER_LEVEL
        self.need(risen, f"priority {taken} runs while {highest} waits")
        if kind == "shared" and {request.tenant for request in waiting} == set("abcd"):
            served = [truth.served[tenant] for tenant in "abcd"]
            batch = 31 * truth.settings.batching.largest_batch
            self.need(max(served) - min(served) <= 2 * batch, f"tenants were served {served} tokens")

    def _waits(self, model: ModelPlan, item: ItemTruth) -> bool:
        """Waits since before this instant, in the queue of this model."""
        truth = self.truth
        request = truth.requests[item.request]
        is_its = item.state == "waiting" and request.model == model.name
        is_wanted = item.request not in truth.ended and self._deadline(request) > truth.time()
        return is_its and is_wanted and item.encoded_at < truth.time()

    def _tokens_fit(self, padded: int, own: int, batching: Batching) -> bool:
        return min(padded, own if not batching.enabled else padded) <= batching.max_batch_tokens

    def _has_waited(self, model: ModelPlan, in_force: Sequence[Batching]) -> bool:
        """Whether the oldest of the queue has waited its limit, which no spacing goes against."""
        truth = self.truth
        since = min(
            item.encoded_at
            for item in truth.items.values()
            if item.state == "waiting"
            and truth.requests[item.request].model == model.name
            and truth.ended.get(item.request, math.inf) >= truth.time()
        )
        return truth.time() >= since + min(b.max_wait_milliseconds for b in in_force) / 1000 - _EXACT

    # When a caller asks and when it is told.

    def asked(self, request: Request) -> None:
        """What the answer has to be judged by, as things stand at the call."""
        whole = self.engine.settings.batching
        own = self.engine.settings.models.get(request.model)
        limit = float(whole.item_timeout_seconds)
        inputs = len(request.texts)
        sure = whole.max_queued_tokens is None and request.within is None  # too late is as good as full
        fits = sure and self.engine.total_queue_depth + inputs <= whole.max_queued_requests
        if own is not None:
            room = (own.max_queued_requests or math.inf) - self.engine.queue_depth(request.model)
            fits = fits and own.max_queued_tokens is None and inputs <= room
        alone = "tenant" not in self.truth.plan.habits and self.truth.plan.kind in ("calm", "faulty")
        self.truth.asked[request.number] = self.truth.time()
        within = math.inf if request.within is None else request.within
        self.asked_[request.number] = Asked(min(limit, within), fits and alone)

    def answered(self, request: Request, answer: Answer) -> None:
        """Each row belongs to its text, and what has no row has a reason."""
        self._ended(request)
        due, who = tokens_due(request), f"request {request.number}"
        self.need(answer.tokens == list(map(len, due)), f"{who}: tokens {answer.tokens}")
        self.need(len(answer.rows) == len(due), f"{who}: {len(answer.rows)} rows")
        for index, text in enumerate(due):
            error = answer.errors.get(index)
            if error is None:
                right = np.array_equal(answer.rows[index], row_of(text))
                self.need(right and not self._must_fail(request, text), f"{who}: row {index} is wrong")
            else:
                self.need(np.isnan(answer.rows[index]).all(), f"{who}: row {index} has row and error")
                self.need(error.index == index, f"{who}: error of {index} names {error.index}")
                self.need(self._may_fail(request, text, error.code), f"{who}: {error} for a good text")
        self.tally.bad += len(answer.errors)
        self.tally.good += len(due) - len(answer.errors)
        self.tally.answered_since_stop += self.truth.stopping is not None
        if request.victim:
            self._not_starved(request)

    def refused(self, request: Request, error: BaseException) -> None:
        """An error is the one that its circumstances call for, at its very time."""
        self._ended(request)
        truth, asked = self.truth, self.asked_[request.number]
        elapsed = truth.time() - truth.asked[request.number]
        holds = {
            asyncio.CancelledError: request.number in truth.cancelled,
            DeadlineExceeded: bool(request.texts) and elapsed == max(0.0, asked.limit),
            TooLate: asked.limit <= 0 and elapsed == 0.0,
            ModelLoading: elapsed == asked.limit,
            ModelFailing: elapsed == 0.0 and truth.may_be_failing(request.model),
            ModelLoadFailed: request.model in truth.load_failures,
            QueueFull: _is_due_delay(error) and not (asked.fits and elapsed == 0.0),
            TooLarge: self._is_too_large(request),
            InvalidRequest: not request.texts and elapsed == 0.0,
            ShuttingDown: truth.stopping is not None and elapsed == 0.0,
            Stopped: truth.stopping is not None and truth.time() == truth.stopping + truth.plan.patience,
        }
        self.need(holds.get(type(error), False), f"request {request.number}: {error!r} after {elapsed} s")
        self.need(not request.victim or isinstance(error, QueueFull), f"victim {request.number}: {error!r}")
        self.tally.lost += len(request.texts) * isinstance(
            error, asyncio.CancelledError | DeadlineExceeded | Stopped | TooLate
        )
        self.tally.stopped_requests += isinstance(error, Stopped)

    def _deadline(self, request: Request) -> float:
        return self.truth.asked[request.number] + self.asked_[request.number].limit

    def _ended(self, request: Request) -> None:
        truth, number = self.truth, request.number
        self.need(number not in truth.ended, f"request {number} has two outcomes")
        truth.ended[number] = truth.time()
        limit = max(0.0, self.asked_[number].limit)
        self.need(truth.time() <= truth.asked[number] + limit + _EXACT, f"request {number} waited past its limit")

    def _must_fail(self, request: Request, text: Text) -> bool:
        model = self._plan_of(request)
        return bool(ROW_FAULTS & set(text)) or NAN in text or len(text) > model.room

    def _may_fail(self, request: Request, text: Text, code: str) -> bool:
        """Whether the fault named is this text's own, or its device's."""
        model, plan = self._plan_of(request), self.truth.plan
        if code == "not_finite":
            return NAN in text
        if code == "input_too_large":
            return len(text) > model.room
        return bool((ROW_FAULTS | {BLIP}) & set(text)) or any(away.device in model.devices for away in plan.away)

    def _plan_of(self, request: Request) -> ModelPlan:
        return next(model for model in self.truth.plan.models if model.name == request.model)

    def _is_too_large(self, request: Request) -> bool:
        tokens, inputs = sum(map(len, tokens_due(request))), len(request.texts)
        return any(
            inputs > (limits.max_queued_requests or math.inf) or tokens > (limits.max_queued_tokens or math.inf)
            for settings in self.truth.in_force()
            for limits in (settings.batching, settings.models.get(request.model))
            if limits is not None
        )

    def _not_starved(self, request: Request) -> None:
        """Served at the latest when its priority has risen over a fresh CRITICAL, and those before it are through."""
        plan = self.truth.plan
        batch = plan.start_seconds + plan.seconds_per_token * 31 * 4
        bound = (CRITICAL - request.priority) * SECONDS_PER_LEVEL + 4 * batch
        waited = self.truth.time() - self.truth.asked[request.number]
        self.need(waited <= bound, f"request {request.number} of priority {request.priority} starved for {waited} s")

    # When all is over.

    def after_stop(self, report: DrainReport, tasks: int, timers: int) -> None:
        """Within its limit, and nothing is left."""
        core, truth, s = self.engine._core, self.truth, self.engine.stats()
        assert truth.stopping is not None
        self.need(truth.time() <= truth.stopping + truth.plan.patience, f"stop took {truth.time() - truth.stopping} s")
        self.need(s.waiting == s.running == s.active_batches == self.engine.total_queue_depth == 0, f"after stop: {s}")
        self.need(core.is_idle and not sum(_held(self.engine).values()), "after stop: the core is not idle")
        self.need(not core._door.shares._held and not core._tenants._waiting, "after stop: tenants hold places")
        self.need(not tasks, f"after stop: {tasks} tasks are left")
        self.need(not timers, f"after stop: {timers} timers are left")
        self.need(set(truth.ended) == set(truth.asked), "after stop: a caller was told nothing")
        self.need(self.tally.stopped_requests <= report.failed, f"{self.tally.stopped_requests} were cut off: {report}")
        answered = self.tally.answered_since_stop
        self.need(report.finished_requests == answered, f"{answered} were answered: {report}")
        if truth.plan.stops == 1:
            self.need(report.stuck_batches == truth.cut_off, f"{truth.cut_off} forwards were cut off: {report}")
        self.step()

    def at_end(self) -> None:
        """Every call had its one outcome, and the counts are those of the outcomes."""
        s, tally = self.engine.stats(), self.tally
        self.need(set(self.truth.ended) == set(self.truth.requests), "a request has no outcome")
        self.need(s.batches == self.truth.forwards, f"{s.batches} batches were counted, {self.truth.forwards} ran")
        self.need(tally.good <= s.completed and tally.bad <= s.failed, f"{tally} does not fit {s}")
        extra = s.completed - tally.good + s.failed - tally.bad + s.cancelled
        self.need(extra <= tally.lost, f"{tally} does not fit {s}")
        self.step()


def _held(engine: Engine) -> Counter[str]:
    """Inputs that wait for another try, by model."""
    found: Counter[str] = Counter()
    for held in engine._core._held.all():
        found[held.model] += sum(not entry[2].cancelled for entry in held.entries)
    return found


def _interval(batching: Batching) -> float:
    return batching.min_batch_interval_milliseconds / 1000


def _is_ready(batching: Batching, queue: ModelQueue, waited: float, *, spaced: bool) -> bool:
    """With its device idle."""
    if waited >= batching.max_wait_milliseconds / 1000 + _EXACT:
        return True
    full = queue.count >= batching.largest_batch or queue.tokens >= batching.max_batch_tokens
    return spaced and (batching.dispatch_when_idle or full or not batching.enabled)


def _is_due_delay(error: BaseException) -> bool:
    return isinstance(error, QueueFull) and 0 < error.retry_after <= 60
