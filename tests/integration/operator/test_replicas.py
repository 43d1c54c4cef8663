"""Two replicas of the operator: one writes."""

import pytest

from tests.support.operators import Place, until, working


@pytest.mark.requirement("O7")
def test_one_leads_and_the_other_takes_over(place: Place) -> None:
    """The standby writes nothing; when the leader ends, the standby goes on within seconds."""
    with working(place) as second:
        with working(place, resync_seconds=1) as first:
            place.apply()
            place.settled()
            until(lambda: place.condition()["reason"] == "Unschedulable")
            leader = place.get("lease", "embedfleet-operator")["spec"]["holderIdentity"]
            standby = first.user if leader == second.user else second.user
            assert {leader, standby} == {first.user, second.user}
            assert place.written_by(leader)
            assert not place.written_by(standby)
        place.apply(replicas=3)
        until(lambda: place.get("deployment")["spec"]["replicas"] == 3)
        assert place.written_by(second.user)
        lease = place.get("lease", "embedfleet-operator")["spec"]
    assert lease["holderIdentity"] == second.user
