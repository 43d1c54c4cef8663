"""Services of a real cluster, managed from Python and from the shell."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

import embedfleet
from embedfleet import errors
from embedfleet.kube.access import SEE, rules
from embedfleet.manifest import parse
from tests.cluster.cluster import Cluster
from tests.support import pods

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def contract(cluster: Cluster) -> Cluster:
    """`cluster` once it serves EmbeddingServices."""
    cluster.kubectl("apply", "--validate=strict", "-f", str(ROOT / "crds"))
    cluster.kubectl("wait", "crd", "--all", "--for=condition=Established", "--timeout=60s")
    return cluster


@pytest.fixture(autouse=True)
def _administrator(contract: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine where nothing runs, and the kubeconfig of an administrator."""
    for name in ("EMBEDFLEET_URL", "EMBEDFLEET_NAMESPACE", "EMBEDFLEET_CA_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(contract.kubeconfig))


def wanted(name: str = "semantic", **spec: Any) -> embedfleet.EmbeddingService:
    """A service as a user gives it."""
    return parse(yaml.safe_dump(pods.manifest(name, **spec)))


def become(contract: Cluster, monkeypatch: pytest.MonkeyPatch, user: str) -> None:
    """Go on as a user without any rights."""
    monkeypatch.setenv("KUBECONFIG", str(contract.kubeconfig_for(user)))


def shell(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line."""
    command = [sys.executable, "-m", "embedfleet", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ), timeout=60)


def got(contract: Cluster, namespace: str, name: str = "semantic") -> dict[str, Any]:
    """The object as it is in the cluster."""
    found: dict[str, Any] = json.loads(
        contract.kubectl("-n", namespace, "get", "embed", name, "-o", "json", "--show-managed-fields")
    )
    return found


def test_a_service_is_applied_changed_scaled_and_deleted(contract: Cluster, namespace: str) -> None:
    """Server-side apply by a manager of our own; what was not set is nobody's."""
    made = embedfleet.apply(wanted(), namespace=namespace)
    assert (made.service, made.namespace, made.models, made.state) == ("semantic", namespace, ["semantic"], "Unknown")
    tree = got(contract, namespace)
    (manager,) = tree["metadata"]["managedFields"]
    assert (manager["manager"], manager["operation"]) == ("embedfleet-sdk", "Apply")
    assert set(manager["fieldsV1"]["f:spec"]) == {"f:models", "f:gpu"}
    made.scale(3)
    assert got(contract, namespace)["spec"]["replicas"] == 3
    embedfleet.apply(wanted(batching={"maxBatchSize": 8}), namespace=namespace)
    tree = got(contract, namespace)
    assert (tree["spec"]["batching"]["maxBatchSize"], tree["spec"]["replicas"]) == (8, 3)
    assert [one.service for one in embedfleet.services(namespace=namespace)] == ["semantic"]
    embedfleet.delete("semantic", namespace=namespace)
    with pytest.raises(errors.ServiceNotFound, match="no service 'semantic' in namespace"):
        embedfleet.delete("semantic", namespace=namespace)


def test_a_field_of_another_manager_is_not_taken_in_silence(contract: Cluster, namespace: str) -> None:
    """The conflict names the manager; force takes the field."""
    given = json.dumps(pods.manifest("semantic", replicas=2))
    contract.kubectl("-n", namespace, "apply", "--server-side", "-f", "-", stdin=given)
    with pytest.raises(errors.ClusterRefused, match=r'conflict with "kubectl": \.spec\.replicas') as caught:
        embedfleet.apply(wanted(replicas=5), namespace=namespace)
    assert caught.value.status == 409
    embedfleet.apply(wanted(replicas=5), namespace=namespace, force=True)
    assert got(contract, namespace)["spec"]["replicas"] == 5


def test_what_may_not_be_done_comes_with_its_rule(
    contract: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user without rights is told which rule of a role each call needs."""
    embedfleet.apply(wanted(), namespace=namespace)
    (found,) = embedfleet.services(namespace=namespace)
    become(contract, monkeypatch, "nobody")
    with pytest.raises(errors.Forbidden) as caught:
        embedfleet.apply(wanted(replicas=2), namespace=namespace)
    rule = '- {apiGroups: ["embedfleet.dev"], resources: ["embeddingservices"], verbs: [patch, create]}'
    assert caught.value.rule == rule
    told = embedfleet.services(namespace=namespace)
    assert rules(SEE) in told.notes[0]
    with pytest.raises(errors.Forbidden) as caught:
        embedfleet.connect("semantic", namespace=namespace)
    assert "create services/proxy" in str(caught.value)
    assert "create pods/portforward" in str(caught.value)
    assert isinstance(found, embedfleet.ClusterService)


def test_waiting_tells_of_the_way(contract: Cluster, namespace: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each change of the status is a line; it ends when the newest spec is served, or says what keeps it."""
    made = embedfleet.apply(wanted(), namespace=namespace)
    starting = pods.ready(holds=False, reason="InsufficientGPU", message="no free GPU")
    pods.told(contract, namespace, "semantic", observedGeneration=1, conditions=[starting])
    with pytest.raises(errors.TimedOut, match=r"InsufficientGPU, 0 of 1 pods ready.*no free GPU"):
        made.wait_ready(timeout=0)
    ready = {"conditions": [pods.ready()], "observedGeneration": 1, "readyReplicas": 1}
    models = [{"name": "semantic", "state": "Ready"}]
    later = threading.Thread(
        target=pods.told, args=(contract, namespace, "semantic"), kwargs={**ready, "models": models}
    )
    later.start()
    made.wait_ready(timeout=60)
    later.join()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"{namespace}/semantic: InsufficientGPU, 0 of 1 pods ready (no free GPU)"
    assert lines[-1] == f"{namespace}/semantic: Ready, 1 of 1 pods ready; models: semantic Ready"


def test_events_are_read(contract: Cluster, namespace: str) -> None:
    """What was said about the service, in order."""
    made = embedfleet.apply(wanted(), namespace=namespace)
    event = {
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "type": "Warning",
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "t", "reportingInstance": "t", "action": "a",
        "reason": "Blocked", "note": "no free GPU",
        "regarding": {"kind": "EmbeddingService", "name": "semantic", "namespace": namespace},
    }  # fmt: skip
    contract.kubectl("-n", namespace, "create", "-f", "-", stdin=json.dumps(event))
    (found,) = made.events()
    assert str(found).endswith("Warning  EmbeddingService/semantic  Blocked: no free GPU")


@pytest.mark.requirement("K5")
def test_the_shell_does_the_same(contract: Cluster, namespace: str, tmp_path: Path) -> None:
    """apply, get, describe, scale, pause, set, delete; as a table, as JSON, as YAML."""
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(pods.manifest("semantic", "semantic", "code")))
    where = ("-n", namespace)
    assert "is applied" in shell("apply", "-f", str(tmp_path / "s.yaml"), *where).stdout
    head, line = shell("get", *where).stdout.splitlines()
    assert head.split() == ["NAMESPACE", "SERVICE", "STATE", "PODS", "MODELS", "URL"]
    assert line.split() == [namespace, "semantic", "Unknown", "0/1", "semantic,", "code"]
    told = yaml.safe_load(shell("get", "semantic", *where, "-o", "yaml").stdout)
    assert (told["kind"], told["metadata"]["name"]) == ("EmbeddingService", "semantic")
    assert json.loads(shell("get", *where, "-o", "json").stdout)[0] == told
    assert "is to have 2 pods" in shell("scale", "semantic", "--replicas", "2", *where).stdout
    assert "0 of 2 ready" in shell("describe", "semantic", *where).stdout
    assert "is to be paused" in shell("pause", "semantic", "--model", "code", *where).stdout
    assert "gets maxBatchSize" in shell("set", "semantic", "maxBatchSize=16", *where).stdout
    spec = got(contract, namespace)["spec"]
    assert spec["models"][1]["batching"] == {"paused": True}
    assert (spec["batching"]["maxBatchSize"], spec["batching"]["paused"]) == (16, False)
    done = shell("set", "semantic", "maxBatchSize=0", *where)
    assert done.returncode == 1
    assert "spec.batching.maxBatchSize" in done.stderr
    assert "has no pods" in shell("logs", "semantic", *where).stderr
    assert shell("doctor", "semantic", *where).returncode == 1
    assert "is deleted" in shell("delete", "semantic", *where).stdout
    assert "no service 'semantic'" in shell("get", "semantic", *where).stderr
