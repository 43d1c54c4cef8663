"""What happens in one simulated world, drawn whole from its seed before anything runs.

Times are multiples of 1/1024 s, so that sums of them are exact and many things happen at the very same instant.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from embedfleet.api import Batching, BatchingSettings, Health, ModelBatching
from embedfleet_server.batching.types import CRITICAL, HIGH, LOW, LOWEST, NORMAL

TICK = 1 / 1024
FIRST_IDENTITY = 1000
"""Tokens from here on name one text of one request; below are faults, the prompt and filling."""

POISON, NAN, FEW, MANY, SHAPE, OBJECT, BLIP, HANG = range(1, 9)
"""Tokens that make a forward raise, give NaN, too few or too many rows, short rows, no numbers, pass, or never end."""
ROW_FAULTS = {POISON, FEW, MANY, SHAPE, OBJECT}
"""Those that fail the text that holds them, always, and with it any batch it is in."""
QUERY = 9
"""The token of the prompt."""

Kind = Literal["calm", "faulty", "overload", "shared"]
FAULTS = ("poison", "nan", "rows", "blip", "away", "memory", "hang", "load")
HABITS = (
    "cancel", "deadline", "priority", "tenant", "pause", "change", "early stop", "lazy", "slow load", "two devices",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """A model of the world and the faults of its own."""

    name: str
    devices: tuple[str, ...]
    """Those with a copy of it."""
    padded: bool
    lazy: bool
    load_seconds: float
    load_failures: int
    room: int
    """Most computed tokens that a device of its holds."""


@dataclass(frozen=True, slots=True)
class Request:
    """One call of `embed`."""

    number: int
    at: float
    model: str
    texts: tuple[tuple[int, ...], ...]
    as_words: bool
    priority: int = NORMAL
    tenant: str = ""
    within: float | None = None
    cancel_after: float | None = None
    input_type: str | None = None
    victim: bool = False
    """One whose wait the priorities bound, whatever floods the engine."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something done to the engine: new settings, or a pause or resume of one model or of all."""

    at: float
    settings: BatchingSettings | None = None
    model: str | None = None
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Away:
    """A device that cannot be reached for a while."""

    device: str
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Plan:
    """One world."""

    seed: int
    kind: Kind
    models: tuple[ModelPlan, ...]
    settings: BatchingSettings
    requests: tuple[Request, ...]
    changes: tuple[Change, ...]
    away: tuple[Away, ...]
    stop_at: float
    patience: float
    stops: int
    start_seconds: float
    seconds_per_token: float
    encode_seconds: float
    blips: int
    """How many forwards of a blipping text fail before one passes."""
    habits: frozenset[str] = field(default_factory=frozenset)
    paces: Mapping[str, int] = field(default_factory=dict)
    """How many times slower than the others a device is, where it is."""
    warm_up: float = 0.0
    """Seconds in which all models may be measured before they are ready."""


def draw(seed: int) -> Plan:
    """The world of a seed."""
    plan = _warmed(_draw(seed), seed)
    # By chances of its own, so that the other worlds of old seeds stay what they were.
    chance = random.Random(f"copies of {seed}")
    return _with_copies(plan, chance) if plan.kind in ("calm", "faulty") and chance.random() < 0.4 else plan


def _warmed(drawn: Plan, seed: int) -> Plan:
    if drawn.kind in ("overload", "shared"):
        return drawn
    return replace(drawn, warm_up=random.Random(-1 - seed).choice([0.0, 0.25, 1.5]))


def _draw(seed: int) -> Plan:
    chance = random.Random(seed)
    kind: Kind = chance.choices(("calm", "faulty", "overload", "shared"), (25, 65, 5, 5))[0]
    if kind == "overload":
        return _overload(seed, chance)
    return _shared(seed, chance) if kind == "shared" else _ordinary(seed, kind, chance)


def _ordinary(seed: int, kind: Kind, chance: random.Random) -> Plan:
    wanted = HABITS + (FAULTS if kind == "faulty" else ())
    habits = frozenset(habit for habit in wanted if chance.random() < 0.35)
    models = _models(habits, chance)
    settings = _settings([model.name for model in models], chance)
    seconds = chance.choice([0.25, 1.0, 4.0])
    stop_at = _ticks(chance, 0, seconds) if "early stop" in habits else seconds + 2.0
    patience = chance.choice([0.0, 0.125, 1.0, 5.0]) if "early stop" in habits else 600.0
    requests = _requests(habits, models, seconds, chance)
    return Plan(
        seed=seed,
        kind=kind,
        models=models,
        settings=settings,
        requests=tuple(_told_at(request, stop_at + patience, chance) for request in requests),
        changes=_changes(habits, models, settings.batching, seconds, chance),
        away=_away(habits, models, seconds, chance),
        stop_at=stop_at,
        patience=patience,
        stops=chance.choice([1, 1, 2]),
        start_seconds=chance.choice([1, 8, 32, 128]) * TICK,
        seconds_per_token=chance.choice([0, 0, 1, 4]) * TICK,
        encode_seconds=chance.choice([0, 0, 1, 16, 256]) * TICK,
        blips=chance.choice([1, 2, 4]),
        habits=habits,
    )


def _models(habits: frozenset[str], chance: random.Random) -> tuple[ModelPlan, ...]:
    def one(number: int) -> ModelPlan:
        return ModelPlan(
            name=f"m{number}",
            devices=(f"sim:{number % 2}" if "two devices" in habits else "sim:0",),
            padded=chance.random() < 0.6,
            lazy="lazy" in habits and chance.random() < 0.5,
            load_seconds=_ticks(chance, 0, 2.0) if "slow load" in habits else 0.0,
            load_failures=chance.choice([0, 1, 2]) if "load" in habits else 0,
            room=chance.choice([8, 24, 64]) if "memory" in habits else 1 << 30,
        )

    return tuple(one(number) for number in range(chance.randint(1, 3)))


def _settings(models: Sequence[str], chance: random.Random) -> BatchingSettings:
    largest = chance.choice([1, 2, 4, 8, 32])
    batching = Batching(
        enabled=chance.random() < 0.85,
        sizing=chance.choice(["Adaptive", "Fixed"]),
        initial_batch_size=chance.choice([1, 3, 32]),
        min_batch_size=chance.choice([1, min(2, largest)]),
        max_batch_size=largest,
        target_batch_milliseconds=chance.choice([None, 60, 500]),
        max_batch_tokens=chance.choice([8, 32, 16384]),
        max_wait_milliseconds=chance.choice([0, 50, 125, 1000]),
        min_batch_interval_milliseconds=chance.choice([0, 0, 0, 125, 2000]),
        dispatch_when_idle=chance.random() < 0.7,
        sort_by_length=chance.random() < 0.5,
        max_concurrent_batches=chance.choice([1, 2, 4]),
        max_queued_requests=chance.choice([4, 16, 64, 1000]),
        max_queued_tokens=chance.choice([None, None, 64]),
        item_timeout_seconds=chance.choice([1, 5, 30, 600]),
        max_retries=chance.choice([0, 1, 3, 5]),
        retry_delay_milliseconds=chance.choice([0, 125, 1000, 40_000]),
        health=Health(failing_percent=chance.choice([50, 100]), probe_after_seconds=chance.choice([1, 5])),
    )
    own = {model: _own(chance) for model in models if chance.random() < 0.2}
    return BatchingSettings(batching=batching, models=own)


def _own(chance: random.Random) -> ModelBatching:
    return ModelBatching(
        paused=chance.choice([None, None, True]),
        max_batch_size=chance.choice([None, 3]),
        max_queued_requests=chance.choice([None, 3, 12]),
        max_queued_tokens=chance.choice([None, 40]),
    )


def _requests(
    habits: frozenset[str], models: Sequence[ModelPlan], seconds: float, chance: random.Random
) -> tuple[Request, ...]:
    bursts = [_ticks(chance, 0, seconds) for _ in range(chance.randint(1, 8))]
    times = sorted(
        chance.choice(bursts) if chance.random() < 0.5 else _ticks(chance, 0, seconds + 1.0)
        for _ in range(chance.randint(5, 45))
    )
    return tuple(_request(number, at, habits, models, chance) for number, at in enumerate(times))


def _request(
    number: int, at: float, habits: frozenset[str], models: Sequence[ModelPlan], chance: random.Random
) -> Request:
    inputs = chance.choice([1, 1, 1, 2, 3, 7]) if chance.random() < 0.98 else 0
    as_words = chance.random() < 0.3
    return Request(
        number=number,
        at=at,
        model=chance.choice(models).name,
        texts=tuple(_text(number, index, habits, chance) for index in range(inputs)),
        as_words=as_words,
        priority=chance.choice([LOWEST, LOW, NORMAL, HIGH, CRITICAL]) if "priority" in habits else NORMAL,
        tenant=chance.choice("aab") if "tenant" in habits else "",
        within=_limit(chance) if "deadline" in habits and chance.random() < 0.4 else None,
        cancel_after=_ticks(chance, 0, 0.5) if "cancel" in habits and chance.random() < 0.4 else None,
        input_type="query" if as_words and chance.random() < 0.3 else None,
    )


def _told_at(request: Request, end: float, chance: random.Random) -> Request:
    """Some have a limit that runs out at the very moment at which the patience of the stop does."""
    if request.at >= end or chance.random() > 0.05:
        return request
    return replace(request, within=end - request.at)


def _text(number: int, index: int, habits: frozenset[str], chance: random.Random) -> tuple[int, ...]:
    faults = [
        *([POISON] if "poison" in habits else []),
        *([NAN] if "nan" in habits else []),
        *([FEW, MANY, SHAPE, OBJECT] if "rows" in habits else []),
        *([BLIP] if "blip" in habits else []),
        *([HANG] if "hang" in habits and chance.random() < 0.2 else []),
    ]
    fault = [chance.choice(faults)] if faults and chance.random() < 0.2 else []
    length = chance.choice([0, 0, 1, 2, 5, 5, 12, 30])
    return (FIRST_IDENTITY + 16 * number + index, *fault, *(chance.randint(10, 99) for _ in range(length)))


def _limit(chance: random.Random) -> float:
    return chance.choice([0.0, -1.0]) if chance.random() < 0.05 else _ticks(chance, 0, 2.0) + TICK


def _changes(
    habits: frozenset[str], models: Sequence[ModelPlan], first: Batching, seconds: float, chance: random.Random
) -> tuple[Change, ...]:
    changes = []
    names = [None, *(model.name for model in models)]
    if "change" in habits:
        changes += [
            Change(_ticks(chance, 0, seconds), settings=_settings([model.name for model in models], chance))
            for _ in range(chance.randint(1, 5))
        ]
    if "pause" in habits:
        changes += [
            Change(_ticks(chance, 0, seconds), model=chance.choice(names), paused=chance.random() < 0.5)
            for _ in range(chance.randint(1, 5))
        ]
    if "early stop" not in habits:  # what is paused for ever would only wait for its limit
        last = Batching(
            item_timeout_seconds=600,
            max_retries=first.max_retries,
            retry_delay_milliseconds=first.retry_delay_milliseconds,
        )
        changes.append(Change(seconds + 1.5, settings=BatchingSettings(batching=last)))
        changes.append(Change(seconds + 1.5))
    return tuple(sorted(changes, key=lambda change: change.at))


def _away(
    habits: frozenset[str], models: Sequence[ModelPlan], seconds: float, chance: random.Random
) -> tuple[Away, ...]:
    if "away" not in habits:
        return ()
    begin = _ticks(chance, 0, seconds)
    return (Away(chance.choice(models).devices[0], begin, begin + _ticks(chance, 0, 3.0)),)


def _with_copies(plan: Plan, chance: random.Random) -> Plan:
    """Two to four devices of unlike speed, each with a copy of every model; the one that may go away is any of them."""
    names = tuple(f"sim:{number}" for number in range(chance.choice([2, 2, 3, 4])))

    def devices(model: ModelPlan) -> tuple[str, ...]:
        first = names.index(model.devices[0])
        return names[first:] + names[:first]

    return replace(
        plan,
        models=tuple(replace(model, devices=devices(model)) for model in plan.models),
        away=tuple(replace(away, device=chance.choice(names)) for away in plan.away),
        habits=plan.habits | {"copies"},
        paces={name: chance.choice([1, 1, 2, 4]) for name in names},
    )


def _overload(seed: int, chance: random.Random) -> Plan:
    """Floods of CRITICAL work of all lengths, short low work that fills gaps, and low victims that must not starve."""
    model = ModelPlan("m0", ("sim:0",), padded=True, lazy=False, load_seconds=0.0, load_failures=0, room=1 << 30)
    batching = Batching(
        sizing="Fixed",
        max_batch_size=chance.choice([2, 4]),
        sort_by_length=chance.random() < 0.8,
        max_queued_requests=64,
        item_timeout_seconds=120,
        dispatch_when_idle=chance.random() < 0.7,
    )
    level = chance.choice([LOWEST, LOW, NORMAL])
    flood = [_flood(at, "flood", CRITICAL, chance) for at in _every(chance.choice([0.125, 0.25]), 45.0)]
    filling = [_flood(at, "fill", level, chance) for at in _every(chance.choice([0.25, 1.0]), 45.0)]
    victims = [
        Request(0, at, "m0", ((0, *([10] * chance.choice([0, 30]))),), False, level, f"v{index}", victim=True)
        for index, at in enumerate((2.0, 5.0))
    ]  # fmt: skip
    victims += [_late(level, 3.0 + 0.5 * index, 30 if index == 0 else 0) for index in range(80)]
    made = sorted(flood + filling + victims, key=lambda request: request.at)
    return Plan(
        seed, "overload", (model,), BatchingSettings(batching=batching), tuple(map(_numbered, range(len(made)), made)),
        (), (), 46.0, 600.0, 1, 128 * TICK, 16 * TICK, 0.0, 1,
    )  # fmt: skip


def _shared(seed: int, chance: random.Random) -> Plan:
    """Four tenants, one with far more to do than the others: as long as all of them wait, all get the same."""
    batching = Batching(
        sizing="Fixed",
        max_batch_size=chance.choice([2, 8]),
        sort_by_length=chance.random() < 0.5,
        max_queued_requests=2000,
        item_timeout_seconds=600,
    )
    padded = chance.random() < 0.5
    model = ModelPlan("m0", ("sim:0",), padded, lazy=False, load_seconds=0.0, load_failures=0, room=1 << 30)
    requests = [
        _of_tenant(tenant, chance) for tenant, count in zip("abcd", (25, 25, 25, 75), strict=True) for _ in range(count)
    ]
    chance.shuffle(requests)
    return Plan(
        seed, "shared", (model,), BatchingSettings(batching=batching), tuple(map(_numbered, range(150), requests)),
        (Change(0.0, paused=True), Change(1.0)), (), 2.0, 600.0, 1, 8 * TICK, 1 * TICK, 0.0, 1,
    )  # fmt: skip


def _of_tenant(tenant: str, chance: random.Random) -> Request:
    texts = tuple((0, *([10] * chance.choice([1, 5, 30]))) for _ in range(chance.choice([1, 3])))
    return Request(0, TICK, "m0", texts, False, NORMAL, tenant)


def _flood(at: float, tenant: str, priority: int, chance: random.Random) -> Request:
    inputs = chance.choice([1, 3]) if tenant == "flood" else 1
    length = chance.choice([0, 2, 12]) if tenant == "flood" else 0
    return Request(0, at, "m0", ((0, *([10] * length)),) * inputs, as_words=False, priority=priority, tenant=tenant)


def _late(level: int, at: float, length: int) -> Request:
    """One tenant asks for a long text, then for short ones that may fill gaps: its long one must lead all the same."""
    return Request(0, at, "m0", ((0, *([10] * length)),), False, level, "late", victim=length > 0)


def _numbered(number: int, request: Request) -> Request:
    texts = tuple((FIRST_IDENTITY + 16 * number + i, *text[1:]) for i, text in enumerate(request.texts))
    return replace(request, number=number, texts=texts)


def _every(step: float, until: float) -> list[float]:
    return [step * index for index in range(int(until / step))]


def _ticks(chance: random.Random, least: float, most: float) -> float:
    return chance.randint(int(least / TICK), int(most / TICK)) * TICK
