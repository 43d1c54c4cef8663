"""What the batching core itself costs: admit, choose, complete, with 12 queues; and how that grows with what waits."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from embedfleet_server.batching.core import BatchingCore
from embedfleet_server.batching.types import Bound, Policy, Refusal
from tests.benchmarks.report import Goal, Section, show
from tests.support.texts import mixed_texts

_TENANTS = ("red", "green", "blue")
_QUEUES = 12
_WAITING = 1000
_FEW, _MANY = 100, 100_000
_GROWTH = 2.0
_RATES = {1: 60_000, 64: 200_000}
_ITEMS = 60_000
_ITEMS_SCALING = 15_000
_BATCH_SECONDS = 0.01
_BATCH_SIZE = 32


@dataclass(frozen=True, slots=True)
class _Case:
    inputs: int
    padded: bool
    waiting: int = _WAITING
    queues: int = _QUEUES

    def __str__(self) -> str:
        kind = "padded (GPU)" if self.padded else "cut into pieces (CPU)"
        return f"requests of {self.inputs} input{'s' if self.inputs > 1 else ''}, batches {kind}"


def measure(repetitions: int, say: Callable[[str], None]) -> Section:
    """Items a second on one core, for requests of one input and of 64."""
    section = Section(
        "The scheduler alone",
        (f"{_QUEUES} queues, {_WAITING} waiting, batches of at most {_BATCH_SIZE}", "items/s", "µs per item"),
    )
    cases = [_Case(inputs, padded) for inputs in _RATES for padded in (False, True)]
    taken = _taken(cases, repetitions)
    for case, seconds in taken.items():
        say(f"scheduler, {case}: {1 / seconds:,.0f} items/s")
        section.rows.append((str(case), f"{1 / seconds:,.0f}", f"{seconds * 1e6:.2f}"))
    for inputs, wanted in _RATES.items():
        rate = min(1 / seconds for case, seconds in taken.items() if case.inputs == inputs)
        name = f"scheduler, requests of {inputs}: >= {wanted:,} items/s on one core"
        section.goals.append(Goal(name, f"{rate:,.0f}", rate >= wanted))
    return section


def scaling(repetitions: int, say: Callable[[str], None]) -> Section:
    """What an item costs with a long queue, as a multiple of what it costs with a short one."""
    section = Section(
        f"The scheduler with {_MANY:,} inputs waiting against {_FEW}",
        ("requests, batches, queues", f"µs per item, {_FEW} waiting", f"{_MANY:,} waiting", "growth"),
    )
    pairs = [
        (_Case(inputs, padded, _FEW, queues), _Case(inputs, padded, _MANY, queues))
        for queues, padded in ((_QUEUES, True), (1, True), (1, False))
        for inputs in _RATES
    ]
    taken = _taken([case for pair in pairs for case in pair], repetitions)
    growths: dict[int, list[float]] = {inputs: [] for inputs in _RATES}
    for few, many in pairs:
        growth = taken[many] / taken[few]
        growths[few.inputs].append(growth)
        say(f"scheduler, {few}, {few.queues} queues: {growth:.2f} x at {_MANY:,}")
        name = f"{few}; {few.queues} queue{'s' if few.queues > 1 else ''}"
        section.rows.append((name, *(f"{taken[case] * 1e6:.2f}" for case in (few, many)), f"{growth:.2f} x"))
    for inputs, found in growths.items():
        wanted = (
            f"scheduler, requests of {inputs}: cost per item at {_MANY:,} waiting <= {_GROWTH:.0f} x that at {_FEW}"
        )
        section.goals.append(Goal(wanted, f"{max(found):.2f} x at most", max(found) <= _GROWTH))
    section.notes.append(
        f"With {_FEW} waiting in {_QUEUES} queues a batch finds some {_FEW // _QUEUES} inputs; one queue fills its "
        "batches in both cases."
    )
    return section


def _taken(cases: Sequence[_Case], repetitions: int) -> dict[_Case, float]:
    """Seconds an item, the median of interleaved repetitions."""
    seconds: dict[_Case, list[float]] = {case: [] for case in cases}
    for _ in range(max(3, repetitions)):
        for case in cases:
            seconds[case].append(_seconds_per_item(case))
    return {case: median(taken) for case, taken in seconds.items()}


def _seconds_per_item(case: _Case) -> float:
    """Reserve, release, submit, take a batch, complete it, refill; the clock is an argument, nothing is computed."""
    core, feed = _filled(case)
    done, now = 0, 0.0
    items = _ITEMS if case.waiting == _WAITING else _ITEMS_SCALING
    started = time.process_time()
    while done < items:
        now += _BATCH_SECONDS
        batch = core.next_batch(now)
        assert batch is not None, f"This is a bug: {case.waiting} inputs wait and no batch was formed"
        core.complete(batch, _BATCH_SECONDS)
        done += len(batch.entries)
        while core.total_queue_depth + case.inputs <= case.waiting:
            feed(now)
    return (time.process_time() - started) / done


def _filled(case: _Case) -> tuple[BatchingCore, Callable[[float], None]]:
    places = 2 * len(_TENANTS) * max(_WAITING, case.waiting)  # so that no tenant meets the limit of its even part
    core = BatchingCore(4, Bound(places, None))
    names = [f"model-{number}" for number in range(case.queues)]
    for name in names:
        core.add_model(name, Policy(max_batch_size=_BATCH_SIZE))
        core.model_ready(name, f"device-{name}", padded=case.padded)
    lengths = [min(256, 2 + len(text.split()) * 4 // 3) for text in mixed_texts(4096)]
    turn = 0

    def feed(now: float) -> None:
        nonlocal turn
        name, start = names[turn % len(names)], turn * case.inputs % (len(lengths) - case.inputs)
        tenant = _TENANTS[turn % len(_TENANTS)]
        turn += 1
        costs = lengths[start : start + case.inputs]
        refusal = core.reserve(name, case.inputs, now, tenant=tenant)
        assert refusal is None, refusal
        core.release(name, case.inputs, tenant=tenant)
        assert not isinstance(core.submit(name, costs, costs, None, now, tenant=tenant), Refusal)

    while core.total_queue_depth + case.inputs <= case.waiting:
        feed(0.0)
    return core, feed


def main() -> None:
    """Both parts by themselves."""
    show(measure(3, print), scaling(3, print))


if __name__ == "__main__":
    main()
