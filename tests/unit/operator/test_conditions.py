"""The conditions through a service's life: honest about the generation, timed by transitions, written only when new."""

import itertools
from datetime import timedelta
from typing import Any

import pytest
from openapi_schema_validator import OAS30Validator

from embedfleet.api.crd import structural_schema
from embedfleet.api.status import EmbeddingServiceStatus
from embedfleet_operator.errors import PodTemplateInvalid
from embedfleet_operator.plan import Plan
from embedfleet_operator.status import Facts, changes, read, status, transitions
from embedfleet_operator.status.causes import CAUSES
from embedfleet_operator.status.states import STATES, TYPES
from tests.support import cluster_objects as objects
from tests.support.cluster_objects import NOW, answer, deployment, facts, pod, replica_set, seen, service, waiting

EMPTY = EmbeddingServiceStatus()
NO_GPU = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."


def told(given: Facts) -> dict[str, tuple[str, str]]:
    """Each condition's status and reason."""
    return {one.type: (one.status, one.reason) for one in status(given, EMPTY, NOW).conditions}


def rolling(new: dict[str, Any], plan: Plan, **counts: Any) -> Facts:
    """A rollout from revision 1 to 2."""
    apart = deployment(**{"revision": "2", "replicas": 3, "updated": 1, **counts})
    pods = [pod("p-1"), pod("p-2"), new]
    return facts(seen(apart=apart, sets=[replica_set("1"), replica_set("2")], server_pods=pods), plan=plan)


@pytest.mark.requirement("O4")
def test_a_service_that_is_well() -> None:
    """Ready and Available, nothing under way, nothing wrong."""
    assert told(facts()) == {
        "Ready": ("True", "Serving"),
        "Available": ("True", "PodsReady"),
        "Progressing": ("False", "Serving"),
        "RolloutBlocked": ("False", "NotRolling"),
        "ModelsLoaded": ("True", "ModelsReady"),
        "Degraded": ("False", "AsAsked"),
    }


@pytest.mark.requirement("O4")
def test_the_figures_beside_the_conditions() -> None:
    """Pods, address, selector, the oldest batching generation, and a line for each model that all pods agree on."""
    given = facts(seen(answers={"p-1": answer(5), "p-2": answer(3, model={"device": "cuda:1"})}))
    made = status(given, EMPTY, NOW)
    assert (made.replicas, made.ready_replicas, made.batching_generation, made.models_ready) == (2, 2, 3, "1/1")
    assert made.url == "http://semantic.team-a.svc:8080"
    assert made.selector == "embedfleet.dev/service=semantic"
    (model,) = made.models
    assert (model.name, model.state, model.dimensions, model.max_tokens) == ("m", "Ready", 384, 256)
    assert (model.revision, model.fingerprint, model.device) == (objects.COMMIT, "f" * 64, None)


@pytest.mark.requirement("O4")
def test_a_model_is_as_the_worst_pod_has_it() -> None:
    """One pod in which it failed makes it Failed, with the server's words; without any answer it is Unknown."""
    failed = answer(state="Failed", model={"cause": "no weights", "fingerprint": None})
    (model,) = status(facts(seen(answers={"p-1": answer(), "p-2": failed})), EMPTY, NOW).models
    assert (model.state, model.message, model.fingerprint) == ("Failed", "no weights", "f" * 64)
    silent = status(facts(seen(answers={})), EMPTY, NOW)
    assert (silent.models[0].state, silent.models_ready) == ("Unknown", "?/1")
    none = status(facts(seen(server_pods=[], answers={})), EMPTY, NOW)
    assert none.models_ready == "0/1"


@pytest.mark.requirement("O4")
def test_the_course_of_a_first_start() -> None:
    """Applying, Starting, one pod of two, Ready."""
    unapplied = facts(seen(apart=deployment(rendered="older", ready=0), server_pods=[], answers={}))
    assert told(unapplied)["Ready"] == ("False", "Applying")
    starting = [pod(ready=False, statuses=[waiting("ContainerCreating")])]
    given = facts(seen(apart=deployment(ready=0), server_pods=starting, answers={}))
    assert told(given)["Ready"] == ("False", "Starting")
    assert told(given)["Progressing"] == ("True", "Starting")
    assert told(given)["Available"] == ("False", "NoPods")
    assert told(given)["ModelsLoaded"] == ("Unknown", "NoAnswer")
    half = facts(seen(apart=deployment(ready=1), server_pods=[pod("p-1"), pod("p-2", ready=False)]))
    assert told(half)["Ready"] == ("False", "PodsNotReady")
    assert told(half)["Available"] == ("True", "PodsReady")
    uncounted = status(facts(seen(apart=deployment(ready=1))), EMPTY, NOW).conditions[0]
    assert uncounted.message == "2 of 2 pods take requests; the Deployment has yet to count them"


@pytest.mark.requirement("O3")
def test_the_course_of_a_rollout_without_room() -> None:
    """RollingOut, WaitingForCapacity, then blocked by InsufficientGPU and DrainingFirst; Available throughout."""
    new = pod("new", revision="2", ready=False)
    stuck = pod("new", revision="2", ready=False, unschedulable=NO_GPU, since=10)
    course = [
        (new, Plan("Surge", "Surging"), ("True", "RollingOut"), ("False", "RolloutProceeds")),
        (stuck, Plan("Surge", "WaitingForCapacity"), ("True", "WaitingForCapacity"), ("False", "RolloutProceeds")),
        (stuck, Plan("DrainFirst", "NoRoom", is_blocked=True), ("True", "DrainingFirst"), ("True", "InsufficientGPU")),
        (new, Plan("DrainFirst", "NoRoom"), ("True", "DrainingFirst"), ("False", "RolloutProceeds")),
    ]
    for pod_, plan, progressing, blocked in course:
        found = told(rolling(pod_, plan))
        assert (found["Progressing"], found["RolloutBlocked"]) == (progressing, blocked)
        assert found["Available"] == ("True", "PodsReady")
        assert found["Ready"][0] == "False"


@pytest.mark.requirement("O3")
def test_a_rollout_that_must_surge_says_that_it_is_blocked() -> None:
    """With rollout.strategy Surge nothing is drained: the rollout stays blocked, and is not called progressing."""
    stuck = pod("new", revision="2", ready=False, unschedulable=NO_GPU, since=400)
    found = told(rolling(stuck, Plan("Surge", "NoRoom", is_blocked=True)))
    assert found["Progressing"] == ("False", "InsufficientGPU")
    assert found["RolloutBlocked"] == ("True", "InsufficientGPU")


@pytest.mark.requirement("O3")
def test_a_bad_image_blocks_a_rollout_at_once_and_the_old_pods_serve_on() -> None:
    """The cause stands in Ready and RolloutBlocked; Available stays True."""
    bad = pod("new", revision="2", ready=False, statuses=[waiting("ImagePullBackOff", "no such tag")])
    found = told(rolling(bad, Plan("Surge", "Surging")))
    assert found["RolloutBlocked"] == ("True", "ImagePullBackOff")
    assert found["Ready"] == ("False", "ImagePullBackOff")
    assert found["Available"] == ("True", "PodsReady")


@pytest.mark.requirement("O5")
def test_a_spec_that_cannot_be_applied_leaves_the_pods_serving() -> None:
    """Ready says why, RolloutBlocked too, and Available that the older spec is served."""
    for given in (
        facts(service=None, problems=("spec.pipelines: is not a known field",), rendered=None),
        facts(obstacle=PodTemplateInvalid("podTemplate.spec.volumes"), rendered=None),
    ):
        found = told(given)
        assert found["Ready"][0] == "False"
        assert found["RolloutBlocked"] == ("True", found["Ready"][1])
        assert found["Available"] == ("True", "PodsReady")


def test_no_pods_wanted_is_no_trouble() -> None:
    """Suspended and scaled to zero are said as such."""
    none: dict[str, Any] = {
        "apart": deployment(wanted=0, replicas=0, updated=0, ready=0),
        "server_pods": [],
        "answers": {},
    }
    for spec, reason in (({"suspend": True}, "Suspended"), ({"replicas": 0}, "ScaledToZero")):
        found = told(facts(seen(service(**spec), **none)))
        assert found["Ready"] == found["Available"] == found["Progressing"] == ("False", reason)
        assert found["Degraded"] == ("False", "AsAsked")


@pytest.mark.requirement("O2")
def test_ready_waits_for_the_batching_values_in_every_pod_that_answers() -> None:
    """A pod with older values makes it wait and is named; one that does not answer does not."""
    given = facts(seen(service(generation=4), answers={"p-1": answer(4), "p-2": answer(3)}))
    made = status(given, EMPTY, NOW)
    (ready,) = [one for one in made.conditions if one.type == "Ready"]
    assert (ready.status, ready.reason) == ("False", "SettingsPending")
    assert "p-2" in ready.message
    assert made.batching_generation == 3
    assert told(facts(seen(service(generation=4), answers={"p-1": answer(4)})))["Ready"] == ("True", "Serving")


@pytest.mark.requirement("O4")
def test_never_ready_for_an_old_generation() -> None:
    """Over every combination of what may lag behind, Ready is True only when nothing does."""
    lags: dict[str, tuple[Any, Any]] = {
        "applied": ("older", objects.RENDERED),
        "seen": (False, True),
        "updated": (1, 2),
        "ready": (1, 2),
        "replicas": (3, 2),
        "batching": (6, 7),
    }
    for chosen in itertools.product(*(range(2) for _ in lags)):
        now = {name: values[one] for (name, values), one in zip(lags.items(), chosen, strict=True)}
        apart = deployment(
            rendered=now["applied"],
            seen=now["seen"],
            updated=now["updated"],
            ready=now["ready"],
            replicas=now["replicas"],
        )
        answers = {"p-1": answer(7), "p-2": answer(now["batching"])}
        made = status(facts(seen(service(generation=7), apart=apart, answers=answers)), EMPTY, NOW)
        (ready,) = [one for one in made.conditions if one.type == "Ready"]
        assert (ready.status == "True") is all(chosen), now
        assert {one.observed_generation for one in made.conditions} == {made.observed_generation} == {7}


@pytest.mark.requirement("O4")
def test_a_conditions_time_is_that_of_its_last_change() -> None:
    """It moves when the answer changes and stays when only reason or words do."""
    starting = facts(seen(apart=deployment(ready=0), server_pods=[], answers={}))
    applying = facts(seen(apart=deployment(rendered="older"), server_pods=[], answers={}))
    first = status(applying, EMPTY, NOW)
    second = status(starting, first, NOW + timedelta(seconds=60))
    third = status(facts(), second, NOW + timedelta(seconds=120))
    times = [made.conditions[0].last_transition_time for made in (first, second, third)]
    assert times == ["2026-01-01T12:00:00Z", "2026-01-01T12:00:00Z", "2026-01-01T12:02:00Z"]


@pytest.mark.requirement("O8")
def test_nothing_new_is_not_written() -> None:
    """The same facts later give no write; others' conditions are neither read as ours nor a reason to write."""
    written = changes({}, status(facts(), EMPTY, NOW))
    assert written is not None
    live = {"status": written | {"conditions": [*written["conditions"], {"type": "Theirs", "status": "True"}]}}
    again = status(facts(), read({"status": written}), NOW + timedelta(hours=1))
    assert changes({"status": written}, again) is None
    assert changes(live, again) is None
    assert changes({"status": written | {"readyReplicas": 1}}, again) == written


def test_a_status_that_cannot_be_read_is_written_anew() -> None:
    """What an older or newer operator left behind is no obstacle."""
    assert read({"status": {"phase": "Running"}}) == EMPTY
    assert read({}) == EMPTY


@pytest.mark.requirement("O4")
def test_the_status_fits_the_schema() -> None:
    """What is written is what the CRD takes, for a service that is well and for one that is not."""
    validator = OAS30Validator(structural_schema(EmbeddingServiceStatus))
    bad = pod("new", revision="2", ready=False, statuses=[waiting("ImagePullBackOff", "x" * 10_000)])
    for given in (facts(), rolling(bad, Plan("Surge", "Surging")), facts(seen(server_pods=[], answers={}))):
        written = changes({}, status(given, EMPTY, NOW))
        assert [error.message for error in validator.iter_errors(written)] == []


@pytest.mark.requirement("O4")
def test_every_reason_is_documented() -> None:
    """Each reason that the cases of this file give is a cause or a state of the documentation's tables."""
    stuck = pod("new", revision="2", ready=False, unschedulable=NO_GPU)
    given = [
        facts(),
        facts(seen(server_pods=[], answers={})),
        facts(seen(service(suspend=True))),
        facts(seen(service(generation=9))),
        rolling(stuck, Plan("Surge", "WaitingForCapacity")),
        rolling(stuck, Plan("DrainFirst", "AsAsked")),
    ]
    reasons = {reason for one in given for _, reason in told(one).values()}
    assert reasons <= set(STATES) | set(CAUSES)
    assert not set(STATES) & set(CAUSES)
    assert list(told(facts())) == [kind.name for kind in TYPES]


@pytest.mark.requirement("O4")
def test_events_come_with_transitions_only() -> None:
    """A new reason is an event, once however many conditions share it; the same again, or other words, is none."""
    bad = pod("new", revision="2", ready=False, statuses=[waiting("ImagePullBackOff", "no such tag")])
    worse = pod("new", revision="2", ready=False, statuses=[waiting("ImagePullBackOff", "still no such tag")])
    well = status(facts(), EMPTY, NOW).conditions
    first = status(rolling(bad, Plan("Surge", "Surging")), EMPTY, NOW).conditions
    again = status(rolling(worse, Plan("Surge", "Surging")), EMPTY, NOW).conditions
    assert [(made.kind, made.reason) for made in transitions(well, first)] == [("Warning", "ImagePullBackOff")]
    assert transitions(first, again) == []
    assert [(made.kind, made.reason) for made in transitions(again, well)] == [
        ("Normal", "Serving"),
        ("Normal", "ModelsReady"),
    ]
    assert [made.reason for made in transitions([], well)] == ["Serving", "PodsReady", "ModelsReady"]
