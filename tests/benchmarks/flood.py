"""Ten thousand single-text requests at the same moment, raw and through the SDK."""

from typing import Any

from tests.benchmarks import ours
from tests.benchmarks.bench import Bench
from tests.benchmarks.report import Goal, Section

REQUESTS = 10_000


def measure(bench: Bench) -> Section:
    """Raw: each a vector or a refusal, none without answer. Through the SDK: all vectors."""
    bench.say(f"{REQUESTS} requests at once, raw")
    raw = bench.clients.ask("flood", url=bench.server.url, model=ours.MODEL, count=REQUESTS)
    bench.say(f"  {raw}\n{REQUESTS} at once through the SDK")
    sdk = bench.clients.ask("sdk_flood", url=bench.server.url, model=ours.MODEL, count=REQUESTS)
    bench.say(f"  {sdk}")
    section = Section(
        f"{REQUESTS:,} concurrent requests of one text of four words each",
        ("client", "vectors", "429", "other or none", "seconds"),
    )
    section.rows += [_row("raw, a connection each", raw), _row("SDK, `await service.embed(text)` each", sdk)]
    section.goals.append(_raw_goal(raw["outcomes"]))
    vectors = sdk["outcomes"].get("vector", 0)
    section.goals.append(
        Goal(f"{REQUESTS:,} at once through the SDK: all vectors", f"{vectors:,} vectors", vectors == REQUESTS)
    )
    return section


def _raw_goal(outcomes: dict[str, int]) -> Goal:
    vectors, refused = outcomes.get("vector", 0), outcomes.get("429", 0)
    told = f"{vectors:,} vectors, {refused:,} refusals, {REQUESTS - vectors - refused:,} other"
    return Goal(
        f"{REQUESTS:,} at once, raw: each a vector or a 429", told, vectors + refused == REQUESTS and vectors > 0
    )


def _row(client: str, answer: dict[str, Any]) -> tuple[str, ...]:
    outcomes: dict[str, int] = answer["outcomes"]
    rest = {name: count for name, count in outcomes.items() if name not in ("vector", "429")}
    other = ", ".join(f"{count} {name}" for name, count in rest.items()) or "0"
    return client, f"{outcomes.get('vector', 0):,}", f"{outcomes.get('429', 0):,}", other, f"{answer['seconds']:.1f}"
