"""Eight tenants with equal rights, in virtual time: what each gets of a full device, in tokens.

One that sends a hundred times its share must leave the others theirs; with equal demand all get the same.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.benchmarks.report import Goal, Section, show
from tests.benchmarks.simulated import Call, Draw, End, Run, mixed_lengths
from tests.support import virtual_time

_TENANTS = tuple(f"tenant-{number}" for number in range(8))
_WARM_UP, _SECONDS = 4.0, 64.0
"""One batch may give its leader 7 s of everyone's time at once: over 12 s its share came out as 0.82 or 1.83."""
_CEILING = 10_000.0  # tokens a second that no texts pass: 0.1 ms each; an eighth of it is more than a share can be
_DEMAND = 1.5  # of its share at least, by each tenant that is not greedy: it always has something waiting
_GREED = 100.0
_SHARE, _JAIN = 0.9, 0.95
_SEED = 5
_SHORT, _LONG = (8,), (128,)


@dataclass(frozen=True, slots=True)
class _Case:
    """Who sends what: by tenant, the demand as a multiple of an even share, and the lengths of its texts."""

    name: str
    demand: Sequence[float]
    lengths: Sequence[Sequence[int]]
    is_even: bool


def measure(say: Callable[[str], None]) -> Section:
    """Tokens served to each tenant, as a multiple of an eighth of what the device gives."""
    section = Section(
        f"Fairness, simulated device: {len(_TENANTS)} tenants for {_SECONDS - _WARM_UP:.0f} virtual seconds",
        ("demand of each, as a multiple of its share", "served, of its share: least", "most", "Jain index", "tokens/s"),
    )
    for case in _cases():
        served = virtual_time.run(_served(case))
        share = sum(served) / len(served)
        parts = [tokens / share for tokens in served]
        say(f"fairness, {case.name}: {', '.join(f'{part:.2f}' for part in parts)}")
        jain = sum(served) ** 2 / (len(served) * sum(tokens**2 for tokens in served))
        cells = f"{min(parts):.2f}", f"{max(parts):.2f}", f"{jain:.4f}", f"{sum(served):,.0f}"
        section.rows.append((case.name, *cells))
        section.goals.append(_goal(case, parts, jain))
    section.notes.append(
        "Served: a share is an eighth of the tokens answered in the run. Demand: of an eighth of 10,000 tokens/s, "
        "which the device cannot pass whatever it is sent, so each tenant has more to send than its share."
    )
    return section


def _cases() -> list[_Case]:
    count, mixed = len(_TENANTS), mixed_lengths()
    even = [_DEMAND] * count
    return [
        _Case(f"all {_DEMAND}, mixed texts", even, [mixed] * count, is_even=True),
        _Case(
            f"all {_DEMAND}; four send texts of {_SHORT[0]} tokens, four of {_LONG[0]}",
            even,
            [_SHORT, _LONG] * (count // 2),
            is_even=True,
        ),
        _Case(f"one {_GREED:.0f}, others {_DEMAND}, mixed texts", [_GREED, *even[1:]], [mixed] * count, is_even=False),
        _Case(
            f"one {_GREED:.0f} with texts of {_LONG[0]} tokens, others {_DEMAND} mixed",
            [_GREED, *even[1:]],
            [_LONG, *[mixed] * (count - 1)],
            is_even=False,
        ),
    ]


async def _served(case: _Case) -> list[float]:
    """Tokens a second answered to each tenant."""
    calls = [call for number in range(len(_TENANTS)) for call in _calls(case, number)]
    async with Run() as run:
        began = asyncio.get_running_loop().time()
        calls = await run.open_loop(sorted(calls, key=lambda call: call.at))
    served: Counter[str] = Counter()
    for call in calls:
        if call.end is End.ANSWERED and _WARM_UP < began + call.at + call.seconds <= _SECONDS:
            served[call.tenant] += call.tokens
    return [served[name] / (_SECONDS - _WARM_UP) for name in _TENANTS]


def _calls(case: _Case, number: int) -> list[Call]:
    draw = Draw(_SEED + number, lengths=case.lengths[number])
    times = draw.arrivals(case.demand[number] * _CEILING / len(_TENANTS), _SECONDS)
    return [Call(at, draw.lengths(), _TENANTS[number]) for at in times]


def _goal(case: _Case, parts: Sequence[float], jain: float) -> Goal:
    if case.is_even:
        return Goal(f"fairness, {case.name}: Jain index >= {_JAIN}", f"{jain:.4f}", jain >= _JAIN)
    least = min(parts[1:])
    return Goal(f"fairness, {case.name}: others >= {_SHARE:.0%} of theirs", f"{least:.0%}", least >= _SHARE)


def main() -> None:
    """This part by itself."""
    show(measure(print))


if __name__ == "__main__":
    main()
