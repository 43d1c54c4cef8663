"""From a name to one service among those of a cluster, and what is read of it."""

from typing import Any

import pytest

from embedfleet.errors import AmbiguousName
from embedfleet.kube import access
from embedfleet.kube.forward import PodPort, ready_pods
from embedfleet.kube.lookup import Scope, scope
from embedfleet.kube.names import choose
from embedfleet.kube.objects import applied, events_about
from embedfleet.kube.record import ClusterRecord, read
from embedfleet.manifest import parse


def record(namespace: str, service: str, *models: str) -> ClusterRecord:
    return ClusterRecord(service, namespace, models)


A, B = record("a", "search", "text", "code"), record("b", "shop", "text", "search")


@pytest.mark.requirement("K2")
def test_a_services_name_wins_over_a_models() -> None:
    """`search` is a service in one place and a model in another."""
    assert choose("search", [B, A], "x") == (A, None)
    assert choose("code", [A, B], "x") == (A, "code")
    assert choose("nothing", [A, B], "x") is None
    assert choose(None, [A], "x") == (A, None)
    assert choose(None, [], "x") is None


@pytest.mark.requirement("K2")
@pytest.mark.parametrize(
    ("name", "records", "words"),
    [
        ("text", [A, B], r"several services have a model 'text': a/search .*; b/shop .*namespace= and model='text'"),
        ("search", [A, record("c", "search")], "'search' exists in several namespaces: a/search .*; c/search"),
        (None, [A, B], "several services in x: a/search"),
    ],
)
def test_several_are_listed(name: str | None, records: list[ClusterRecord], words: str) -> None:
    """Nothing is guessed; the error says how to choose."""
    with pytest.raises(AmbiguousName, match=words) as caught:
        choose(name, records, "x")
    assert len(caught.value.found) == 2


def test_the_namespace_given_goes_before_the_environments_and_the_contexts() -> None:
    """Only one that was asked for keeps others from being looked into."""
    assert scope("given", "env", "ctx") == Scope("given", is_given=True)
    assert scope(None, "env", "ctx") == Scope("env", is_given=True)
    assert scope(None, None, "ctx") == Scope("ctx", is_given=False)


def test_an_object_is_read_tolerantly() -> None:
    """One of a newer operator, with fields of other types, is read as far as it goes; nothing raises."""
    assert read({"metadata": {"name": "s", "namespace": "a"}, "spec": 7, "status": {"models": "?"}}).state == "Unknown"
    ready = {"type": "Ready", "status": "False", "reason": "InsufficientGPU", "message": "none free"}
    status = {"conditions": [ready], "observedGeneration": 3, "url": "http://s.a.svc:8080"}
    told = read({"metadata": {"name": "s", "namespace": "a", "generation": 3}, "spec": {}, "status": status})
    assert (told.state, told.is_ready, told.public_url) == ("InsufficientGPU", False, None)
    assert told.trouble == "no pod is ready (Ready is False: InsufficientGPU: none free)"


def test_ready_pods_take_requests() -> None:
    """A pod that is not ready, or leaves, gets none; the port is the one named http."""
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    ports = {"containers": [{"ports": [{"name": "observe", "containerPort": 1}, {"name": "http", "containerPort": 2}]}]}
    given: list[dict[str, Any]] = [
        {"metadata": {"name": "a"}, "spec": ports, "status": ready},
        {"metadata": {"name": "b"}, "status": ready},
        {"metadata": {"name": "c", "deletionTimestamp": "x"}, "status": ready},
        {"metadata": {"name": "d"}, "status": {}},
    ]
    assert ready_pods(given) == [PodPort("a", 2), PodPort("b", 8080)]


def test_rules_are_grouped_by_resource() -> None:
    """What is missing is told as a Role has it."""
    assert access.rules(access.FORWARD).splitlines() == [
        '- {apiGroups: [""], resources: ["pods"], verbs: [list]}',
        '- {apiGroups: [""], resources: ["pods/portforward"], verbs: [get, create]}',
    ]


def test_what_is_applied_is_what_was_set() -> None:
    """No default of ours becomes a field that we own; what the API server writes is left out."""
    text = "metadata: {name: s, labels: {a: b}, uid: u}\nspec: {models: [{name: m, source: {path: /m}}]}"
    assert applied(parse(text), "team-a") == {
        "apiVersion": "embedfleet.dev/v1alpha1",
        "kind": "EmbeddingService",
        "metadata": {"labels": {"a": "b"}, "name": "s", "namespace": "team-a"},
        "spec": {"models": [{"name": "m", "source": {"path": "/m"}}]},
    }


def test_events_of_the_service_and_of_what_is_named_after_it() -> None:
    """Pods of `semantic` are, those of `semantic-2` are not."""
    kinds = [
        ("EmbeddingService", "semantic"),
        ("Pod", "semantic-7d9f-x2x4z"),
        ("Pod", "semantic-2-7d9f-x2x4z"),
        ("EmbeddingService", "semantic-2"),
        ("ReplicaSet", "semantic-7d9f"),
    ]
    items = [{"regarding": {"kind": kind, "name": name}, "note": "n", "eventTime": "t"} for kind, name in kinds]
    about = [event.about for event in events_about(items, "semantic")]
    assert about == ["EmbeddingService/semantic", "Pod/semantic-7d9f-x2x4z", "ReplicaSet/semantic-7d9f"]
