"""What the batching core itself costs: admit, choose, complete, with 12 queues and 1000 inputs waiting."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from embedfleet_server.batching.core import BatchingCore
from embedfleet_server.batching.types import Bound, Policy, Refusal
from tests.benchmarks.report import Section
from tests.support.texts import mixed_texts

_TENANTS = ("red", "green", "blue")
_QUEUES = 12
_WAITING = 1000
_ITEMS = 60_000
_BATCH_SECONDS = 0.01
_BATCH_SIZE = 32


@dataclass(frozen=True, slots=True)
class _Case:
    inputs: int
    padded: bool

    def __str__(self) -> str:
        kind = "padded (GPU)" if self.padded else "cut into pieces (CPU)"
        return f"requests of {self.inputs} input{'s' if self.inputs > 1 else ''}, batches {kind}"


def measure(repetitions: int, say: Callable[[str], None]) -> Section:
    """Items a second on one core, for requests of one input and of 64."""
    section = Section(
        "The scheduler alone",
        (f"{_QUEUES} queues, {_WAITING} waiting, batches of at most {_BATCH_SIZE}", "items/s", "µs per item"),
    )
    cases = [_Case(inputs, padded) for inputs in (1, 64) for padded in (False, True)]
    seconds: dict[_Case, list[float]] = {case: [] for case in cases}
    for _ in range(max(3, repetitions)):
        for case in cases:
            seconds[case].append(_seconds_per_item(case))
    for case, taken in seconds.items():
        middle = median(taken)
        say(f"scheduler, {case}: {1 / middle:,.0f} items/s")
        section.rows.append((str(case), f"{1 / middle:,.0f}", f"{middle * 1e6:.2f}"))
    return section


def _seconds_per_item(case: _Case) -> float:
    """Reserve, release, submit, take a batch, complete it, refill; the clock is an argument, nothing is computed."""
    core, feed = _filled(case)
    done, now = 0, 0.0
    started = time.process_time()
    while done < _ITEMS:
        now += _BATCH_SECONDS
        batch = core.next_batch(now)
        assert batch is not None, "This is a bug: 1000 inputs wait and no batch was formed"
        core.complete(batch, _BATCH_SECONDS)
        done += len(batch.entries)
        while core.total_queue_depth + case.inputs <= _WAITING:
            feed(now)
    return (time.process_time() - started) / done


def _filled(case: _Case) -> tuple[BatchingCore, Callable[[float], None]]:
    places = 2 * len(_TENANTS) * _WAITING  # so that no tenant meets the limit of its even part
    core = BatchingCore(4, Bound(places, None))
    names = [f"model-{number}" for number in range(_QUEUES)]
    for name in names:
        core.add_model(name, Policy(max_batch_size=_BATCH_SIZE))
        core.model_ready(name, f"device-{name}", padded=case.padded)
    lengths = [min(256, 2 + len(text.split()) * 4 // 3) for text in mixed_texts(4096)]
    turn = 0

    def feed(now: float) -> None:
        nonlocal turn
        name, start = names[turn % _QUEUES], turn * case.inputs % (len(lengths) - case.inputs)
        tenant = _TENANTS[turn % len(_TENANTS)]
        turn += 1
        costs = lengths[start : start + case.inputs]
        refusal = core.reserve(name, case.inputs, now, tenant=tenant)
        assert refusal is None, refusal
        core.release(name, case.inputs, tenant=tenant)
        assert not isinstance(core.submit(name, costs, costs, None, now, tenant=tenant), Refusal)

    while core.total_queue_depth + case.inputs <= _WAITING:
        feed(0.0)
    return core, feed
