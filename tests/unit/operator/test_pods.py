"""Asking pods what they say of themselves, over real sockets."""

import asyncio
from typing import Any

from embedfleet_operator.pods import Pods
from tests.support.cluster_objects import answer
from tests.support.hollow_servers import HollowServers

Plain = dict[str, Any]


def pod(uid: str, address: str, version: str = "1") -> Plain:
    """A running pod."""
    return {"metadata": {"uid": uid, "resourceVersion": version}, "status": {"phase": "Running", "podIP": address}}


def asked(*rounds: list[Plain]) -> tuple[list[str], list[set[str]]]:
    """Addresses in the order in which they were asked, and the uids that each round had an answer of; only 10.0.0.1
    answers.
    """
    seen: list[str] = []

    def reply(address: str) -> Plain | None:
        seen.append(address)
        return answer(1) if address == "10.0.0.1" else None

    async def ask(url: str) -> list[set[str]]:
        async with Pods(url) as pods:
            return [set(await pods.states(found)) for found in rounds]

    with HollowServers(reply) as servers:
        return seen, asyncio.run(ask(servers.url))


def test_each_running_pod_is_asked_at_its_address() -> None:
    """A pod that answers is given back, one that does not is left out, one that does not run is not asked."""
    waiting = {"metadata": {"uid": "w"}, "status": {"phase": "Pending", "podIP": "10.0.0.3"}}
    seen, (found,) = asked([pod("a", "10.0.0.1"), pod("b", "10.0.0.2"), waiting])
    assert sorted(seen) == ["10.0.0.1", "10.0.0.2"]
    assert found == {"a"}


def test_a_hiccup_is_no_news() -> None:
    """The last answer of a pod stands while it is silent for a moment, and no longer once the pod has changed."""
    rounds = [[pod("a", "10.0.0.9")], [pod("a", "10.0.0.9")], [pod("a", "10.0.0.9", "2")]]
    replies = iter([answer(1), None, None])

    async def ask(url: str) -> list[set[str]]:
        async with Pods(url) as pods:
            return [set(await pods.states(found)) for found in rounds]

    with HollowServers(lambda _: next(replies)) as servers:
        assert asyncio.run(ask(servers.url)) == [{"a"}, {"a"}, set()]


def test_a_silent_pod_is_not_asked_at_every_pass() -> None:
    """A second look asks the one that answered, and the silent one only when it has changed since."""
    both = [pod("a", "10.0.0.1"), pod("b", "10.0.0.2")]
    seen, _ = asked(both, both, [pod("b", "10.0.0.2", "2")])
    assert sorted(seen[:2]) == ["10.0.0.1", "10.0.0.2"]
    assert seen[2:] == ["10.0.0.1", "10.0.0.2"]
