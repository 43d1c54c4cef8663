"""Each call to the API server fails in each way, in turn, between a whole operator and a real API server."""

import threading
from collections import Counter
from dataclasses import dataclass, field

import pytest

from tests.support.crowds import Crowd
from tests.support.faulty_proxy import SOUND, Call, Fault, proxied
from tests.support.operators import Place, working

WRITES, READS = 11, 17
"""Of a first pass: seven children, events and the status; the service, its types of children, each child by name."""
WAYS = {
    "conflict": Fault(code=409),
    "invalid": Fault(code=422),
    "throttled": Fault(code=429),
    "broken": Fault(code=500),
    "lost": Fault(cut="after"),
    "reset": Fault(cut="before"),
}


@dataclass
class Misfortunes:
    """Each service's own: which of its calls, of those that change something or of the others, ends how."""

    planned: dict[str, tuple[bool, int, Fault]]
    met: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def judge(self, call: Call) -> Fault:
        """What becomes of `call`."""
        name = call.service or ""
        is_write, number, fault = self.planned.get(name, (False, -1, SOUND))
        if call.is_watch or call.is_write != is_write:
            return SOUND
        self._counts[name] += 1
        if self._counts[name] - 1 != number:
            return SOUND
        self.met.add(name)
        return fault


@pytest.mark.requirement("O7")
def test_each_write_fails_in_each_way(place: Place) -> None:
    """Whichever write is refused, lost on its way or taken without an answer: what comes of it is as without that."""
    planned = {f"{way}{number}": (True, number, fault) for way, fault in WAYS.items() for number in range(WRITES)}
    run(place, Misfortunes(planned))


@pytest.mark.requirement("O7")
def test_each_read_fails(place: Place) -> None:
    """The same for what is read: a pass that could not see everything changes nothing for the worse."""
    ways = [WAYS["broken"], WAYS["reset"]]
    run(place, Misfortunes({f"read{number}": (False, number, ways[number % 2]) for number in range(READS)}))


def run(place: Place, fates: Misfortunes) -> None:
    """One operator with all these services; each has met its misfortune and is as the one without."""
    crowd = Crowd(place, ["calm", *fates.planned])
    with proxied(place.cluster.kubeconfig) as proxy:
        proxy.judge = fates.judge
        with working(place, kubeconfig=proxy.kubeconfig, resync_seconds=4):
            crowd.apply(replicas=1)
            crowd.alike()
        deleted = [call for call in proxy.calls if call.method == "DELETE"]
    assert fates.met == fates.planned.keys()
    assert not deleted
    reasons = Counter((one["regarding"]["name"], one["reason"]) for one in place.all_events())
    assert set(reasons.values()) == {1}  # none twice, though the answer to the first may have been lost


@pytest.mark.requirement("O1", "O7")
def test_each_event_is_lost(place: Place) -> None:
    """Whichever event of a watch does not come, as a service is made, changed and loses a child: the resync repairs."""
    events = 30
    crowd = Crowd(place, ["calm", *(f"deaf{number}" for number in range(events))])
    lost: set[str] = set()
    counts: Counter[str] = Counter()
    lock = threading.Lock()

    def hears(tree: dict[str, object]) -> bool:
        """Whether this event gets through: not the n-th of service `deafN`."""
        metadata = tree["metadata"]
        assert isinstance(metadata, dict)
        name = metadata.get("labels", {}).get("embedfleet.dev/service", metadata["name"])
        with lock:
            counts[name] += 1
            if name != f"deaf{counts[name] - 1}":
                return True
            lost.add(name)
        return False

    with proxied(place.cluster.kubeconfig) as proxy:
        proxy.hears = hears
        with working(place, kubeconfig=proxy.kubeconfig, resync_seconds=4):
            crowd.apply(replicas=1)
            crowd.alike()
            crowd.apply(replicas=2)
            place.kubectl("delete", "services", "-l", "embedfleet.dev/service", "--wait=false")
            crowd.alike()
    assert lost == set(crowd.names[1:])
