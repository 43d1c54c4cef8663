"""Three times what a device can compute, in virtual time: what is still answered, how late, what is done in vain.

`python -m tests.benchmarks.overload` shows this part and, after it, the same over HTTP (`overload_served`).
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.benchmarks import overload_served
from tests.benchmarks.report import Goal, Section, show
from tests.benchmarks.simulated import Call, Draw, End, Run
from tests.support import virtual_time

FACTOR = 3.0
_SIZES = (1, 1, 1, 1, 1, 1, 4, 16)  # texts of a request: mostly one, most texts in the larger ones
_CLIENTS = (32, 64, 128, 256)
_WARM_UP, _SECONDS = 10.0, 50.0
_SEED = 3
_GOODPUT, _VAIN = 0.9, 0.01


@dataclass(frozen=True, slots=True)
class _Crowd:
    """Who asks: `patience` gives a call its deadline or the moment its caller goes away."""

    name: str
    patience: Callable[[Draw, Call], None]


@dataclass(frozen=True, slots=True)
class _Found:
    """What became of the calls of one crowd, after the warm-up."""

    goodput: float
    """Tokens a second of requests answered whole."""
    wait: float
    """p99 of the seconds of requests answered."""
    kept: float
    """p99 of these seconds as a multiple of what admission promised."""
    ends: dict[End, int]
    before: float
    after: float
    vain: float
    """Parts of the tokens computed: of callers gone before their forward began, gone when it ended, never answered."""


def measure(say: Callable[[str], None]) -> Section:
    """Each crowd at three times the peak, which is that of the best closed loop."""
    peaks = {clients: virtual_time.run(_peak(clients)) for clients in _CLIENTS}
    peak = max(peaks.values())
    section = Section(
        f"Overload, simulated device: {FACTOR:.0f} x capacity for {_SECONDS - _WARM_UP:.0f} virtual seconds",
        ("callers", "goodput", "answered/429/late/left", "p99 wait", "of promise", "vain (gone at start, at end)"),
    )
    found = {crowd.name: virtual_time.run(_overloaded(crowd, peak)) for crowd in _CROWDS}
    for name, one in found.items():
        say(f"overload, {name}: goodput {one.goodput / peak:.0%} of peak")
        section.rows.append(_row(name, one, peak))
    section.goals = _goals(found, peak)
    told = ", ".join(f"{clients} clients {value:,.0f}" for clients, value in peaks.items())
    section.notes.append(f"Peak: the best of closed loops, in tokens/s: {told}.")
    section.notes.append(
        "Promise: the wait by which a stated deadline would be refused at the same moment (see `Engine.wait`), and two "
        "batches as long as the longest: the one that runs, and its own."
    )
    section.notes.append(
        "Vain: tokens computed of requests that were not answered; a request is answered whole or not."
    )
    return section


async def _peak(clients: int) -> float:
    async with Run() as run:
        done = await run.closed_loop(clients, _SECONDS, Draw(_SEED, _SIZES))
    return _rate(done)


async def _overloaded(crowd: _Crowd, peak: float) -> _Found:
    draw = Draw(_SEED, _SIZES)
    async with Run() as run:
        began = asyncio.get_running_loop().time()
        calls = [Call(began + at, draw.lengths()) for at in draw.arrivals(FACTOR * peak, _SECONDS)]
        for call in calls:
            crowd.patience(draw, call)
        await run.open_loop(calls)
        return _found(run, [call for call in calls if call.at > _WARM_UP], _rate(calls))


def _found(run: Run, calls: list[Call], goodput: float) -> _Found:
    answered = [call for call in calls if call.end is End.ANSWERED]
    computed = sum(call.computed for call in calls)
    before, after = (sum(gone[call] for call in calls) for gone in (run.device.gone_before, run.device.gone_after))
    vain = sum(call.computed for call in calls if call.end is not End.ANSWERED)
    return _Found(
        goodput,
        float(np.quantile([call.seconds for call in answered], 0.99)),
        float(np.quantile([call.seconds / call.promised for call in answered], 0.99)),
        {end: sum(call.end is end for call in calls) for end in End},
        *(part / computed for part in (before, after, vain)),
    )


def _rate(calls: list[Call]) -> float:
    """Tokens a second of what was answered between warm-up and end."""
    good = (call for call in calls if call.end is End.ANSWERED and _WARM_UP < call.at + call.seconds <= _SECONDS)
    return sum(call.tokens for call in good) / (_SECONDS - _WARM_UP)


def _row(name: str, one: _Found, peak: float) -> tuple[str, ...]:
    ends = "/".join(f"{one.ends[end]:,}" for end in (End.ANSWERED, End.REFUSED, End.LATE, End.LEFT))
    vain = f"{one.vain:.1%} ({one.before:.1%}, {one.after:.1%})"
    return name, f"{one.goodput / peak:.0%} of peak", ends, f"{one.wait:.1f} s", f"{one.kept:.2f} x", vain


def _goals(found: dict[str, _Found], peak: float) -> list[Goal]:
    """One for each claim; each has to hold for every crowd."""

    def told(of: Callable[[_Found], float], form: str) -> str:
        return "; ".join(f"{name}: {format(of(one), form)}" for name, one in found.items())

    every = found.values()
    name = "overload, simulated device"
    return [
        Goal(
            f"{name}: goodput >= {_GOODPUT:.0%} of peak",
            told(lambda one: one.goodput / peak, ".0%"),
            all(one.goodput >= _GOODPUT * peak for one in every),
        ),
        Goal(
            f"{name}: p99 of wait over the wait promised <= 1",
            told(lambda one: one.kept, ".2f"),
            all(one.kept <= 1 for one in every),
        ),
        Goal(
            f"{name}: tokens of callers gone before their forward ended < {_VAIN:.0%}",
            told(lambda one: one.after, ".1%"),
            all(one.after < _VAIN for one in every),
        ),
    ]


def _patient(draw: Draw, call: Call) -> None:
    """Waits as long as the service lets it."""


def _mixed(draw: Draw, call: Call) -> None:
    """A third have a deadline of 0.5 to 5 s; a tenth go away within 4 s."""
    call.within = draw.between(0.5, 5.0) if draw.chance(1 / 3) else None
    call.leaves = draw.between(0.0, 4.0) if draw.chance(0.1) else math.inf


def _hurried(draw: Draw, call: Call) -> None:
    """All have a deadline far short of what a full queue takes: 0.5 to 1.5 s of 4."""
    call.within = draw.between(0.5, 1.5)


_CROWDS = (_Crowd("patient", _patient), _Crowd("mixed", _mixed), _Crowd("hurried", _hurried))


def main() -> None:
    """Both parts of overload, by themselves."""
    show(measure(print), overload_served.measure(print))


if __name__ == "__main__":
    main()
