"""What can keep a service from being served, done to real pods: its condition names the cause, and an event does.

All services are applied at once, so that the slow causes come about beside each other; each test reads one.
"""

import json
from typing import Any

import pytest

from tests.support.operators import until
from tests.support.rooms import DRAIN, PATIENCE, Room, container, restricted_container, room, spec_of

pytestmark = pytest.mark.requirement("O4")
HUB_PORT = 8443
Plain = dict[str, Any]


def source(model: Plain) -> Plain:
    """A model of the hub in this namespace."""
    return {"models": [{"name": "m", "source": {"huggingFace": model}, "dtype": "Float32"}]}


def of_hub(repo: str) -> Plain:
    """A service whose weights are to come from the hub's repository `repo`."""
    spec = spec_of(**source({"repo": repo}), weights={"endpoint": f"http://hub:{HUB_PORT}"})
    return spec | {"podTemplate": {"spec": {"containers": [bare()]}}}


def bare(**others: Any) -> Plain:
    """Container `server` of pods that never serve: it asks for little, and keeps no journal."""
    kept = {key: value for key, value in container().items() if key in ("name", "resources")}
    return kept | others


def templated(pod: Plain | None = None, **others: Any) -> Plain:
    """A service whose pods differ so, by fields of the pod's spec and of the server's container."""
    return spec_of(podTemplate={"spec": {"containers": [bare(**others)], **(pod or {})}})


def small(memory: str) -> Plain:
    """Resources with this limit of memory."""
    return {"requests": {"cpu": "10m", "memory": "10Mi"}, "limits": {"cpu": "1", "memory": memory}}


def specs() -> dict[str, Plain]:
    """A service for each cause, by name."""
    tiny = spec_of()["models"][0]
    return {
        "unschedulable": templated({"nodeSelector": {"disk": "of-gold"}}),
        "gpu": spec_of(gpu={"count": 64, "resourceName": "example.com/gpu"}, batching={"maxConcurrentBatches": 64}),
        "image": templated() | {"image": "test.local/no-such-image:1"},
        "weights": of_hub("org/none"),
        "digest": of_hub("org/tiny"),
        "model": templated() | {"models": [tiny | {"dimensions": 4096}]},
        "memory": templated(resources=small("96Mi")),
        "crash": templated(args=["--settings", "/etc/embedfleet/settings", "--no-such-option"]),
        "secret": templated() | {"auth": {"apiKeysSecretRef": {"name": "keys"}}},
    }


@pytest.fixture(scope="module")
def services(place: Room) -> dict[str, Room]:
    """One for each cause, applied."""
    hub(place)
    made = {name: Room(place.ground, place.keepers, place.namespace, name) for name in specs()}
    for name, spec in specs().items():
        made[name].apply(spec | {"drain": DRAIN | {"requestSeconds": 30}, "batching": spec.get("batching", {})})
    return made


HUB = f"""
import threading
from pathlib import Path
from tests.support.fake_hub import files_of, hub
with hub("org/tiny", files_of(Path("/weights/tiny")), ("", {HUB_PORT})) as made:
    made.corrupt = {{"model.safetensors"}}
    threading.Event().wait()
"""
"""A hub that spoils the weights on the way, as a broken proxy does."""


def hub(place: Room) -> None:
    """The pod and the Service `hub`."""
    metadata = {"name": "hub", "namespace": place.namespace, "labels": {"app": "hub"}}
    server = {
        "name": "hub",
        "image": place.ground.images.server.name,
        "command": ["python", "-c", HUB],
        "env": [{"name": "PYTHONPATH", "value": "/program"}],
        "securityContext": restricted_container(),
        "startupProbe": {"tcpSocket": {"port": HUB_PORT}, "periodSeconds": 1, "failureThreshold": 60},
        "volumeMounts": [
            {"name": "program", "mountPath": "/program"},
            {"name": "weights", "mountPath": "/weights", "readOnly": True},
        ],
    }
    items = [{"key": "tests.support.fake_hub.py", "path": "tests/support/fake_hub.py"}]
    volumes = [
        {"name": "program", "configMap": {"name": "client", "items": items}},
        {"name": "weights", "persistentVolumeClaim": {"claimName": "weights"}},
    ]
    security = {"runAsUser": 65532, "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    pod = {"containers": [server], "volumes": volumes, "securityContext": security, "terminationGracePeriodSeconds": 0}
    ports = {"selector": {"app": "hub"}, "ports": [{"port": HUB_PORT}]}
    place.ground.create(
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": ports},
    )
    place.kubectl("wait", "pod/hub", "--for=condition=Ready", f"--timeout={PATIENCE}s")


CASES = [
    ("unschedulable", "Unschedulable", "didn't match Pod's node affinity/selector"),
    ("gpu", "InsufficientGPU", "Insufficient example.com/gpu"),
    ("image", "ImagePullBackOff", "test.local/no-such-image:1"),
    ("weights", "WeightsMissing", "org/none"),
    ("digest", "DigestMismatch", "model.safetensors"),
    ("model", "ModelLoadFailed", "4096"),
    ("memory", "OOMKilled", "server"),
    ("crash", "CrashLoopBackOff", "--no-such-option"),
    ("secret", "SecretMissing", "Secret keys does not exist"),
]


@pytest.mark.parametrize(("name", "reason", "words"), CASES, ids=[reason for _, reason, _ in CASES])
def test_a_cause_is_named(services: dict[str, Room], name: str, reason: str, words: str) -> None:
    """`Ready` is False for this reason, in words that name what was seen; an event of the service says so too."""
    service = services[name]
    found = until(lambda: _because(service, reason), PATIENCE)
    assert words in found["message"]
    assert found["status"] == "False"
    (event,) = until(lambda: [one for one in service.events() if one["reason"] == reason][:1], PATIENCE)
    assert event["type"] == "Warning"
    assert words in event["message"]


def _because(service: Room, reason: str) -> Plain | None:
    condition = service.condition()
    if condition["reason"] != reason:
        raise KeyError(f"{condition['reason']}: {condition['message']}")
    return condition


def test_a_quota_is_named(place: Room) -> None:
    """A namespace whose ResourceQuota is used up: the condition has the API server's words, and names the quota."""
    with room(place.ground, place.keepers) as full:
        quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "no-more"}, "spec": NO_MORE}
        full.kubectl("create", "-f", "-", stdin=json.dumps(quota))
        until(lambda: full.get("resourcequota", "no-more")["status"]["used"]["pods"] == "1", PATIENCE)
        full.apply(spec_of())
        found = until(lambda: _because(full, "QuotaExceeded"), PATIENCE)
        assert "exceeded quota: no-more" in found["message"]
        assert "QuotaExceeded" in [one["reason"] for one in full.events()]


NO_MORE = {"hard": {"pods": "1"}}


def test_what_is_put_right_is_served(services: dict[str, Room]) -> None:
    """The Secret that was missing is made, and nothing else is done: the service becomes Ready by itself."""
    service = services["secret"]
    service.kubectl("create", "secret", "generic", "keys", "--from-literal=alice=a-key-of-sixteen-letters-and-more")
    service.ready()
