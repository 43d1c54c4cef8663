"""Servers that follow one another under load lose no request; and this test would see it if they did.

The long form: `make soak`.
"""

import asyncio
from pathlib import Path

import pytest

from tests.support.ledger import Journal, Outcome, summary, troubles
from tests.support.rollover import DRAIN, Plan, run

pytestmark = pytest.mark.requirement("S4", "O3")


def test_no_request_is_lost(tmp_path: Path) -> None:
    """Two rollovers under kept-alive, pipelined, slow, half-sent and idle clients: each request is answered or refused,
    and the servers' journals say the same.
    """
    load, journal = asyncio.run(run(tmp_path, Plan(rollovers=2, requests=2000)))
    assert troubles(load.seen, journal) == []
    assert len(load.seen) >= 2000, summary(load.seen)
    for temper in ("keep", "pipe", "slow", "idle"):
        assert any(number.startswith(temper) for number in load.seen)
    assert Outcome.UNSENT in load.seen.values()
    assert sum(outcome is Outcome.ANSWERED for outcome in load.seen.values()) > 1500


@pytest.mark.parametrize(
    "plan",
    [
        pytest.param(Plan(1, 200, sin="no_drain"), id="no drain"),
        pytest.param(Plan(1, 200, flip_late=True, drain=dict.fromkeys(DRAIN, 0)), id="a flip later than the lame duck"),
        pytest.param(Plan(1, 200, sin="engine_first"), id="the engine stopped first"),
        pytest.param(Plan(1, 200, sin="keep_open", drain=DRAIN | {"maxLameDuckSeconds": 3}), id="no Connection: close"),
    ],
)
def test_a_wrong_way_to_leave_is_seen(tmp_path: Path, plan: Plan) -> None:
    """Each way of leaving that loses requests shows as requests that are ambiguous to their clients."""
    load, journal = asyncio.run(run(tmp_path, plan))
    assert any("ambiguous to its client" in line for line in troubles(load.seen, journal)), summary(load.seen)


def test_the_ledger_notices_disagreement() -> None:
    """An answer the server never gave, a refusal of what it took, work for nobody: each has its line."""
    journal = Journal(frozenset({"a", "b", "x"}), {"a": 200, "b": 200})
    seen = {"a": Outcome.ANSWERED, "b": Outcome.REFUSED, "c": Outcome.ANSWERED, "d": Outcome.UNPROCESSED}
    found = troubles(seen, journal)
    assert [line.partition(":")[0] for line in found] == ["b", "c", "x"]
