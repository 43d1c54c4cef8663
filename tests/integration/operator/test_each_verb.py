"""Without any one of its verbs the operator fails somewhere, and says which one it lacks."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from embedfleet_operator import resources
from embedfleet_operator.cluster import Cluster as Api
from embedfleet_operator.cluster import HttpTransport
from embedfleet_operator.configuration import Configuration
from embedfleet_operator.credentials import Credentials
from embedfleet_operator.errors import Refused
from embedfleet_operator.handlers import Watch
from embedfleet_operator.lease import Leadership
from embedfleet_operator.observe import Observer
from embedfleet_operator.pods import Pods
from embedfleet_operator.reconcile import Reconciler
from tests.cluster.cluster import Cluster
from tests.support import privileges
from tests.support.clusters import with_contract
from tests.support.operators import Place, until, whole_pass, working
from tests.support.privileges import Lack

NAMESPACE = "verbs"
LACKS = privileges.lacks()
WORDS = {"update embeddingservices/finalizers": "can't set finalizers on"}
"""Where the API server puts it otherwise: an admission plug-in asks for this verb, and says so in its own words."""


@pytest.fixture(scope="module")
def prepared(bare: Cluster) -> Iterator[Place]:
    """Services, one for each verb, and users who lack it: each service is as far as it must be for that to show."""
    with_contract(bare)
    bare.kubectl("apply", "-f", "-", stdin=json.dumps(privileges.MONITORS))
    bare.kubectl("wait", "crd", "--all", "--for=condition=Established", "--timeout=60s")
    bare.kubectl("create", "namespace", NAMESPACE)
    place = Place(bare, NAMESPACE)
    privileges.grant(bare, LACKS)
    late = [lack for lack in LACKS if privileges.needs_pods(lack)]
    place.kubectl("apply", "-f", "-", stdin=privileges.manifests(late))
    with working(place):
        for lack in late:
            until(lambda lack=lack: of(lack, place).pods())  # type: ignore[misc]
            if privileges.is_rolling(lack):
                privileges.roll(of(lack, place))
    advance(place, late)
    fresh = [lack for lack in LACKS if lack not in late]
    place.kubectl("apply", "-f", "-", stdin=privileges.manifests(fresh))
    yield place
    bare.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def advance(place: Place, late: list[Lack]) -> None:
    """Bring services to where a verb is needed that a new one does not need."""
    for lack in late:
        one = of(lack, place)
        if privileges.is_planted(lack):
            privileges.plant(one, lack.resource)
        elif lack.resource is resources.PODS:
            one.make_ready(one.pods()[0]["metadata"]["name"], "127.0.0.9")
        elif lack.resource is resources.EVENTS:
            privileges.start_container(one, one.pods()[0]["metadata"]["name"])


def of(lack: Lack, place: Place) -> Place:
    """The place with the service of `lack`."""
    return Place(place.cluster, place.namespace, lack.service)


def configuration(lack: Lack, place: Place) -> Configuration:
    """An operator of the whole cluster that lacks it."""
    kubeconfig = place.cluster.kubeconfig_for(lack.user)
    return Configuration(identity=lack.user, kubeconfig=kubeconfig, lease_namespace=NAMESPACE, lease_name=lack.user)


async def one_pass(lack: Lack, place: Place) -> str:
    """What comes of a pass on its service."""
    told = configuration(lack, place)
    async with HttpTransport(Credentials(told)) as http, Pods() as pods:
        api = Api(http)
        reconciler = Reconciler(api, Observer(api, pods, told), told.identity)
        try:
            await api.services()  # as the resync does
            await whole_pass(reconciler, NAMESPACE, lack.service)
        except Refused as refusal:  # which the operator logs
            return str(refusal)
    return json.dumps(of(lack, place).get("embed").get("status", {}))


async def one_hold(lack: Lack, place: Place) -> str:
    """What comes of an attempt to lead."""
    told = configuration(lack, place)
    async with HttpTransport(Credentials(told)) as http:
        with suppress(TimeoutError):
            await asyncio.wait_for(Leadership(Api(http), told, lambda: None).keep(), 1)
    return ""


PASSES = [lack for lack in LACKS if lack.verb != "watch"]


@pytest.mark.requirement("O6")
@pytest.mark.parametrize("lack", PASSES, ids=str)
def test_a_verb_that_is_missing_is_named(lack: Lack, prepared: Place, caplog: pytest.LogCaptureFixture) -> None:
    """The verb is needed, and what the operator says (its log, its status) names it and its resource."""
    run = one_hold if lack.resource is resources.LEASES else one_pass
    said = asyncio.run(run(lack, prepared)) + caplog.text
    assert privileges.words(lack, WORDS) in said.replace('\\"', '"')


@pytest.mark.requirement("O4")
def test_an_event_that_is_refused_keeps_no_status_back(prepared: Place) -> None:
    """An operator that may not make events still writes the status."""
    (lack,) = [one for one in LACKS if (one.resource, one.verb) == (resources.EVENTS, "create")]
    asyncio.run(one_pass(lack, prepared))
    assert of(lack, prepared).condition()["observedGeneration"] == 1


@pytest.mark.requirement("O6")
def test_a_watch_that_is_not_allowed_is_named(prepared: Place, caplog: pytest.LogCaptureFixture) -> None:
    """The same of what is watched: the log names it."""
    watched = [lack for lack in LACKS if lack.verb == "watch"]
    with ExitStack() as stack:
        for lack in watched:
            told = configuration(lack, prepared)
            stack.enter_context(Watch(told, Credentials(told), lambda *_: None))
        until(lambda: all(privileges.words(lack, WORDS) in caplog.text for lack in watched))
