"""Who writes when operators come, go and overlap: killed leaders, two at once, and ones that know only the past."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.support.crowds import Crowd
from tests.support.faulty_proxy import SOUND, Call, Fault, Hold, Proxy, proxied
from tests.support.operators import CHILDREN, Place, until, working
from tests.support.processes import operating

Plain = dict[str, Any]
MOST_DEATHS = 30


@pytest.mark.requirement("O7")
def test_a_killed_leader_is_followed(place: Place) -> None:
    """SIGKILL leaves the Lease held; once that has run out the standby writes what is to be written."""
    with operating(place, "--lease-seconds=2") as first:
        place.apply(replicas=1)
        place.settled()
        with operating(place, "--lease-seconds=2"):
            first.kill()
            place.apply(replicas=2)
            until(lambda: place.get("deployment")["spec"]["replicas"] == 2)
            lease = place.get("lease", "embedfleet-operator")["spec"]
    assert lease["leaseTransitions"] == 2


@pytest.mark.requirement("O7")
def test_killed_after_each_write(place: Place) -> None:
    """Operator after operator is killed as its first write has been taken: each goes on where the one before fell, and
    the end is that of an operator that lives.
    """
    crowd = Crowd(place, ["calm", "killed"])
    crowd.apply(replicas=1)
    with proxied(place.cluster.kubeconfig) as proxy:
        proxy.judge = lambda call: Fault(code=503) if call.service == "killed" else SOUND
        with working(place, kubeconfig=proxy.kubeconfig):
            Place(place.cluster, place.namespace, "calm").settled()
        deaths = sum(1 for _ in killings(place, proxy, crowd))
    assert deaths >= 9  # seven children, an event, the status
    told = [(one["regarding"]["name"], one["reason"]) for one in place.all_events()]
    assert len(told) == len(set(told))


def killings(place: Place, proxy: Proxy, crowd: Crowd) -> Iterator[int]:
    """Operators that die by their first writes, until one has nothing to write."""
    running: subprocess.Popen[bytes]
    proxy.judge = lambda call: Fault(cut="after", then=running.kill) if call.is_write else SOUND
    for number in range(MOST_DEATHS):
        with operating(place, f"--lease-name=run-{number}", kubeconfig=proxy.kubeconfig) as running:
            until(lambda running=running: running.poll() is not None or crowd.is_alike())  # type: ignore[misc]
            if running.poll() is None:
                return
        yield number
    raise AssertionError(f"it never ends; {crowd.states()}")


@pytest.mark.requirement("O7")
def test_two_leaders_do_no_harm(place: Place) -> None:
    """Two operators that both believe they lead come to the end that one comes to, and then both are quiet; what they
    delete they name by its uid.
    """
    with both_leading(place) as proxies:
        place.apply(replicas=1)
        place.settled()
        place.apply(replicas=1, podTemplate=pods_for("two"), network={"enabled": False})
        place.kubectl("delete", "service", place.name)
        until(lambda: step(place) == "two" and place.get("service"))
        place.settled()
        until(lambda: place.condition()["reason"] == "Unschedulable")
        until(lambda: quiet(proxies))
        assert len(place.all("replicasets")) == 2
        assert not place.all("networkpolicies")
    deleted = [call for proxy in proxies for call in proxy.calls if call.method == "DELETE"]
    assert deleted
    assert all((call.body or {})["preconditions"]["uid"] for call in deleted)
    told = [one["reason"] for one in place.all_events() if one["reason"] == "Applying"]
    assert len(told) <= 2  # one for each spec


def quiet(proxies: list[Proxy]) -> bool:
    """Whether no operator writes while each looks at everything five times."""
    before = [(len(proxy.writes), looks(proxy)) for proxy in proxies]
    until(lambda: all(looks(proxy) >= seen + 5 for proxy, (_, seen) in zip(proxies, before, strict=True)))
    return [len(proxy.writes) for proxy in proxies] == [writes for writes, _ in before]


def looks(proxy: Proxy) -> int:
    """How often the services were listed."""
    return sum(call.plural == "embeddingservices" and call.path.endswith(call.plural) for call in list(proxy.calls))


@pytest.mark.requirement("O3", "O7")
def test_a_late_write_changes_nothing(place: Place) -> None:
    """What an operator decided before another took over is refused when it arrives afterwards: no pod is replaced."""
    hold = Hold()

    def is_second(call: Call) -> bool:
        return call.plural == "deployments" and call.is_write and "'two'" in str(call.body)

    with both_leading(place) as proxies:
        place.apply(replicas=1)
        place.settled()
        proxies[0].judge = lambda call: Fault(hold=hold) if is_second(call) else SOUND
        proxies[1].judge = lambda call: Fault(code=503) if is_second(call) else SOUND
        place.apply(replicas=1, podTemplate=pods_for("two"))
        until(hold.reached.is_set)
        place.apply(replicas=1, podTemplate=pods_for("three"))
        until(lambda: step(place) == "three")
        place.settled()
        before = place.get("deployment")["metadata"]["generation"]
        hold.go.set()
        (arrived,) = [call for call in proxies[0].calls if is_second(call)]
        until(lambda: arrived.code)
        assert arrived.code == 409
        until(lambda: quiet(proxies))
        assert place.get("deployment")["metadata"]["generation"] == before


@contextmanager
def both_leading(place: Place) -> Iterator[list[Proxy]]:
    """Two operators with a Lease each, and the proxies before them."""
    with ExitStack() as stack:
        proxies = [stack.enter_context(proxied(place.cluster.kubeconfig)) for _ in range(2)]
        for number, proxy in enumerate(proxies):
            one = working(place, kubeconfig=proxy.kubeconfig, lease_name=f"lease-{number}", resync_seconds=1)
            stack.enter_context(one)
        until(lambda: all(looks(proxy) for proxy in proxies))
        yield proxies


@pytest.mark.requirement("O3", "O7")
def test_a_stale_view_does_no_harm(place: Place) -> None:
    """An operator that starts and is shown the cluster as it was some edits ago takes nothing back: no pod is replaced,
    nothing is deleted. Shown the present, it does what is to be done.
    """
    place.apply(replicas=1)
    with working(place):
        place.settled()
    place.apply(replicas=1, podTemplate=pods_for("two"), network={"enabled": False}, batching={"maxBatchSize": 2})
    past = listed_at(place)
    with working(place):
        until(lambda: step(place) == "two")
        place.apply(replicas=1, podTemplate=pods_for("three"))
        until(lambda: step(place) == "three")
        place.settled()
    before = standing(place)
    with proxied(place.cluster.kubeconfig) as proxy:
        proxy.as_of = past
        with working(place, kubeconfig=proxy.kubeconfig, resync_seconds=1):
            until(lambda: any(call.is_write for call in proxy.calls) and looks(proxy) >= 3)
            assert standing(place) == before
            proxy.as_of = None
            place.apply(replicas=2, podTemplate=pods_for("three"))
            until(lambda: place.get("deployment")["spec"]["replicas"] == 2)
            # no pod gets ready here: which ReplicaSet gets the second one is for Kubernetes, by age and name
            until(
                lambda: (
                    place.get("embed")["status"]["observedGeneration"] == place.get("embed")["metadata"]["generation"]
                )
            )
    assert place.all("networkpolicies")


def listed_at(place: Place) -> str:
    """The version of the cluster just now."""
    return (
        str(place.cluster.kubectl("get", "--raw", f"/api/v1/namespaces/{place.namespace}/pods?limit=1"))
        .split('"resourceVersion":"')[1]
        .split('"')[0]
    )


def standing(place: Place) -> dict[str, Plain]:
    """The children: what they are to be, and the pods themselves."""
    found = [*place.all(CHILDREN), *place.pods()]
    return {
        f"{one['kind']} {one['metadata']['name']}": {
            "uid": one["metadata"]["uid"],
            "generation": one["metadata"].get("generation"),
            "data": one.get("data"),
        }
        for one in found
    }


def pods_for(name: str) -> Plain:
    """A podTemplate that makes another ReplicaSet."""
    return {"spec": {"nodeSelector": {"step": name}}}


def step(place: Place) -> str | None:
    """The one that the Deployment has."""
    found: str | None = place.get("deployment")["spec"]["template"]["spec"].get("nodeSelector", {}).get("step")
    return found
