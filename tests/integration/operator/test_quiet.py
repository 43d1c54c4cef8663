"""An operator with nothing to do writes nothing, and one that is told nothing still sees."""

import pytest

from tests.support.operators import Place, until, working

RESYNC_SECONDS = 0.4


@pytest.mark.requirement("O8")
def test_a_resync_writes_nothing(place: Place) -> None:
    """Ten resyncs of a service that is as it is to be cause reads and not one write."""
    with working(place, resync_seconds=RESYNC_SECONDS) as operator:
        place.apply()
        place.settled()
        until(lambda: place.condition()["reason"] == "Unschedulable")
        seen = place.looks(operator.user)
        until(lambda: place.looks(operator.user) >= seen + 2)  # what the last events asked for is done
        writes, seen = len(place.written_by(operator.user)), place.looks(operator.user)
        until(lambda: place.looks(operator.user) >= seen + 10)
        assert len(place.written_by(operator.user)) == writes


@pytest.mark.requirement("O1", "O7")
def test_what_no_event_tells_is_seen_by_the_resync(place: Place) -> None:
    """With every event lost, a service is made, edited and repaired all the same."""
    with working(place, resync_seconds=RESYNC_SECONDS) as operator:
        operator.operator._hear = lambda *_: None  # type: ignore[method-assign]  # each event is lost
        place.apply()
        place.settled()
        place.kubectl("delete", "service", place.name)
        until(lambda: place.get("service"))
        place.apply(replicas=3)
        until(lambda: place.get("deployment")["spec"]["replicas"] == 3)
