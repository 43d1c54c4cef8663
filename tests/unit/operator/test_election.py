"""Who leads: decided from a Lease and this process's own clock."""

from datetime import UTC, datetime
from typing import Any

import pytest

from embedfleet_operator import election
from embedfleet_operator.election import Sight

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


def lease(version: str = "1", **spec: Any) -> dict[str, Any]:
    """A Lease as the API server gives it."""
    return {**election.new("ns", "lease"), "metadata": {"resourceVersion": version}, "spec": spec}


def held(version: str = "1") -> dict[str, Any]:
    """A Lease that `other` holds for 15 s."""
    return lease(version, holderIdentity="other", leaseDurationSeconds=15)


@pytest.mark.requirement("O7")
def test_a_free_lease_and_ones_own_may_be_taken() -> None:
    """Nobody's, one given back, and the process's own may be written."""
    for one in (lease(), lease(holderIdentity=""), lease(holderIdentity="me")):
        assert election.may_take(one, Sight("1", 0.0), "me", 0.0)


@pytest.mark.requirement("O7")
def test_another_holds_it_as_long_as_it_is_renewed() -> None:
    """A Lease that changes is held; one that has not changed for its duration, by this process's clock, is free."""
    sight = election.look(Sight(), held("1"), 100.0)
    assert not election.may_take(held("1"), sight, "me", 115.0)
    sight = election.look(sight, held("2"), 114.0)
    assert not election.may_take(held("2"), sight, "me", 129.0)
    sight = election.look(sight, held("2"), 129.1)
    assert election.may_take(held("2"), sight, "me", 129.1)


@pytest.mark.parametrize("duration", [2, 15, 300])
def test_a_leader_stops_before_another_begins(duration: int) -> None:
    """A leader that cannot renew is silent well before a standby takes the Lease, a request's half minute aside."""
    assert election.deadline_seconds(duration) + election.renew_seconds(duration) < duration


def test_taking_keeps_the_version_and_counts() -> None:
    """The version stays, so that of two takers one is refused; a new holder is counted, a renewal is not."""
    first = election.taken(lease("7"), "me", NOW)
    assert first["metadata"]["resourceVersion"] == "7"
    assert first["spec"]["leaseTransitions"] == 1
    assert first["spec"]["renewTime"] == "2026-01-01T12:00:00.000000Z"
    assert election.taken(first, "me", NOW)["spec"]["leaseTransitions"] == 1
    assert election.released(first)["spec"]["holderIdentity"] == ""
