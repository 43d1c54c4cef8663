"""What the operator sends to an API server: exact deletions, honest status, no write by a standby."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from embedfleet_operator.cluster import Cluster
from embedfleet_operator.errors import NotLeading, Refused

Plain = dict[str, Any]
METADATA = {"namespace": "team", "name": "semantic", "uid": "u-1", "resourceVersion": "7", "generation": 2}


class Recorder:
    """Takes every request and answers with nothing, or refuses it."""

    def __init__(self, refusal: Refused | None = None) -> None:
        self.asked: list[tuple[str, str, dict[str, str], Plain | None]] = []
        self._refusal = refusal

    async def request(
        self, method: str, path: str, query: Mapping[str, str], body: Plain | None, content: str
    ) -> Plain:
        self.asked.append((method, path, dict(query), body))
        if self._refusal:
            raise self._refusal
        return {}


@pytest.mark.requirement("O7")
def test_a_deletion_names_exactly_what_was_read() -> None:
    """An object that was made anew under the name, or changed since, is not deleted; nor is that an error."""
    recorder = Recorder(Refused(409, "Conflict", "the uid is another"))
    asyncio.run(Cluster(recorder).delete({"kind": "ConfigMap", "metadata": METADATA}))
    ((method, path, _, body),) = recorder.asked
    assert (method, path) == ("DELETE", "/api/v1/namespaces/team/configmaps/semantic")
    assert body is not None
    assert body["preconditions"] == {"uid": "u-1", "resourceVersion": "7"}


@pytest.mark.requirement("O3", "O7")
def test_a_write_names_exactly_what_was_read() -> None:
    """What was read and has changed since is not written over; what was not there is made without such a condition."""
    recorder = Recorder()
    wanted = {"kind": "Service", "metadata": {"namespace": "team", "name": "semantic"}, "spec": {}}
    asyncio.run(Cluster(recorder).apply(wanted, {"kind": "Service", "metadata": METADATA}))
    asyncio.run(Cluster(recorder).apply(wanted))
    over, new = (body or {} for *_, body in recorder.asked)
    assert over["metadata"] == {"namespace": "team", "name": "semantic", "uid": "u-1", "resourceVersion": "7"}
    assert new == wanted


@pytest.mark.requirement("O4", "O7")
def test_a_status_is_of_what_was_read() -> None:
    """The write names the version that it judges; fields it no longer has go, conditions of others stay."""
    recorder = Recorder()
    theirs = {"type": "Approved", "status": "True"}
    old = {"url": "http://x", "conditions": [{"type": "Ready", "status": "False"}, theirs]}
    new = {"observedGeneration": 2, "conditions": [{"type": "Ready", "status": "True"}]}
    asyncio.run(Cluster(recorder).tell({"metadata": METADATA, "status": old}, new))
    ((_, path, _, body),) = recorder.asked
    assert path == "/apis/embedfleet.dev/v1alpha1/namespaces/team/embeddingservices/semantic/status"
    assert body is not None
    assert body["metadata"] == {"uid": "u-1", "resourceVersion": "7"}
    assert body["status"] == {"url": None, **new, "conditions": [{"type": "Ready", "status": "True"}, theirs]}


@pytest.mark.requirement("O7")
def test_a_standby_writes_nothing_but_the_lease() -> None:
    """A replica that does not lead reads, tries for the Lease, and is stopped before any other write is sent."""
    recorder = Recorder()
    cluster = Cluster(recorder, lambda: False)
    with pytest.raises(NotLeading, match="does not lead"):
        asyncio.run(cluster.apply({"kind": "Service", "metadata": METADATA}))
    assert not recorder.asked
    asyncio.run(cluster.services())
    asyncio.run(cluster.update_lease({"metadata": METADATA}))
    assert [method for method, *_ in recorder.asked] == ["GET", "PUT"]


def test_an_event_that_is_there_is_no_error() -> None:
    """The same event again, after a crash, is taken for made; another refusal is not."""
    told = {"metadata": {"namespace": "team", "name": "x"}}
    asyncio.run(Cluster(Recorder(Refused(409, "AlreadyExists", "it is there"))).record(told))
    with pytest.raises(Refused, match="quota"):
        asyncio.run(Cluster(Recorder(Refused(403, "Forbidden", "quota"))).record(told))


def test_the_api_servers_addresses_become_networks() -> None:
    """Endpoints of either family become CIDRs of one address."""

    class Slice(Recorder):
        async def request(
            self, method: str, path: str, query: Mapping[str, str], body: Plain | None, content: str
        ) -> Plain:
            return {"endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["fd00::1"]}]}

    assert asyncio.run(Cluster(Slice()).own_addresses()) == ("10.0.0.1/32", "fd00::1/128")
