"""From `helm install` and `kubectl apply` to vectors, and what may be changed while they are asked for."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import embedfleet as sdk
from embedfleet.errors import RequestRejected
from tests.support.operators import until
from tests.support.releases import Installed
from tests.support.rooms import DRAIN, PATIENCE, ROOT, Room, container, journal_volume
from tests.support.timeline import table, timeline
from tools.weights import packaged_model

TEXTS = ["a text", "parse a date from a string", "Kubernetes schedules pods onto nodes"]
COSINE = 0.99999  # requirement S2
CHILDREN = "serviceaccounts,configmaps,services,poddisruptionbudgets,networkpolicies,deployments,replicasets,pods"
LIVE_SECONDS, REPAIR_SECONDS = 90, 30  # always, by requirements O2 and O1
Plain = dict[str, Any]


@pytest.fixture(scope="module")
def spec() -> Plain:
    """The example's, its weights in a claim, in little pods that drain in no time."""
    manifest = yaml.safe_load((ROOT / "examples" / "embeddingservice.yaml").read_text(encoding="utf-8"))
    found: Plain = manifest["spec"]
    found["weights"] = {"cache": {"persistentVolumeClaim": "weights"}}
    found["drain"] = DRAIN | {"requestSeconds": 30}
    found["podTemplate"] = {"spec": {"containers": [container()], "volumes": [journal_volume()]}}
    return found


@pytest.fixture(scope="module")
def semantic(place: Room, spec: Plain, record_testsuite_property: Any) -> Room:
    """The service, Ready; where the time went is kept with the run's results, and shown."""
    place.apply(spec)
    place.ready()
    place.kubectl("create", "--raw", EMBED.format(place=place), "-f", "-", stdin=json.dumps({"input": TEXTS[:1]}))
    if place.ground.own is not None:
        steps = timeline(place, datetime.now(UTC))
        print(table(steps))
        for step in steps:
            record_testsuite_property(f"seconds until {step.what}", round(step.seconds, 1))
    return place


EMBED = "/api/v1/namespaces/{place.namespace}/services/{place.name}:http/proxy/v1/embeddings"


@pytest.fixture
def as_administrator(semantic: Room, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A laptop with a kubeconfig and nothing else."""
    for name in ("EMBEDFLEET_URL", "EMBEDFLEET_NAMESPACE", "EMBEDFLEET_CA_FILE", "EMBEDFLEET_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(semantic.ground.kubeconfig))


@pytest.fixture(scope="module")
def local() -> np.ndarray:
    """What sentence-transformers computes here of the same weights."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(packaged_model()), device="cpu")
    return np.asarray(model.encode(TEXTS, normalize_embeddings=True))


def assert_alike(served: np.ndarray, local: np.ndarray) -> None:
    """Cosine ≥ 0.99999, text by text."""
    assert served.shape == local.shape
    cosines = (local * served).sum(axis=1) / np.linalg.norm(served, axis=1)
    assert cosines.min() >= COSINE


def connected(semantic: Room) -> sdk.Service:
    """The SDK's client."""
    return sdk.connect("semantic", namespace=semantic.namespace)


@pytest.mark.requirement("K1", "O1", "O6", "S2")
def test_a_laptop_goes_through_the_api_server(semantic: Room, as_administrator: None, local: np.ndarray) -> None:
    """With a kubeconfig alone `connect` finds the service by its name and embeds by the API server's proxy; the vectors
    are those of sentence-transformers.
    """
    with connected(semantic) as service:
        assert service.route.taken is not None
        assert service.route.taken.route == "service proxy"
        assert_alike(service.embed(TEXTS), local)


@pytest.mark.requirement("K1")
def test_a_model_is_found_by_its_name(semantic: Room, as_administrator: None) -> None:
    """The name of a model that one service of the cluster has is enough."""
    with sdk.connect("entity", namespace=semantic.namespace) as service:
        assert service.embed("Ada Lovelace").shape == (128,)


@pytest.mark.requirement("K1")
def test_without_the_proxy_a_port_is_forwarded(
    semantic: Room, as_administrator: None, local: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Somebody who may forward ports and no more gets the same vectors by that route."""
    monkeypatch.setenv("KUBECONFIG", str(forwarder(semantic, tmp_path)))
    with connected(semantic) as service:
        assert service.route.taken is not None
        assert service.route.taken.route == "port-forward"
        assert_alike(service.embed(TEXTS), local)


def forwarder(semantic: Room, folder: Path) -> Path:
    """The kubeconfig of an account that may see services, list pods and forward ports."""
    rules = [
        {"apiGroups": ["embedfleet.dev"], "resources": ["embeddingservices"], "verbs": ["get", "list"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
        {"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["get", "create"]},
    ]
    metadata = {"name": "forwarder", "namespace": semantic.namespace}
    group = "rbac.authorization.k8s.io"
    account = {"kind": "ServiceAccount", **metadata}
    semantic.ground.create(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "subjects": [account],
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "forwarder"},
        },
    )
    config = json.loads(semantic.kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json"))
    config["users"][0]["user"] = {"token": semantic.kubectl("create", "token", "forwarder").strip()}
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


IN_A_POD = """
import sys, json, embedfleet
with embedfleet.connect("semantic") as service:
    vectors = service.embed(json.loads(sys.argv[1]))
    print(json.dumps([service.route.taken.route, vectors.tolist()]))
"""


@pytest.mark.requirement("K1")
def test_a_pod_goes_by_name(semantic: Room, local: np.ndarray) -> None:
    """A pod of the namespace, without a token, reaches the service by DNS with the same line of the SDK."""
    route, vectors = json.loads(semantic.in_pod("python", "-c", IN_A_POD, json.dumps(TEXTS)))
    assert route == "cluster DNS"
    assert_alike(np.array(vectors), local)


@pytest.mark.requirement("O6")
def test_helm_test_embeds_a_sentence(installed: Installed, semantic: Room) -> None:
    """Told of a service, `helm test` has a pod beside it embed a sentence; the operator's pods stay as they are."""
    before = installed.operators()
    installed.helm.upgrade({"test.service": semantic.name, "test.namespace": semantic.namespace})
    told = installed.helm.run("test", "embedfleet", "--timeout", "120s")
    assert told.count("Phase:          Succeeded") == 2, told
    assert installed.operators() == before


@pytest.mark.requirement("O2")
def test_batching_changes_live(semantic: Room, record_testsuite_property: Any) -> None:
    """A batching value reaches the running server, as its `/state` tells, and the pod stays the same one; how long it
    took is kept with the run's results (normally under 5 s).
    """
    before = restarts(semantic)
    (pod,) = (one["metadata"]["name"] for one in semantic.pods())
    began = time.monotonic()
    semantic.patch({"spec": {"batching": {"maxBatchSize": 17}}})
    generation = semantic.get()["metadata"]["generation"]
    until(lambda: semantic.state(pod)["generation"] == generation, LIVE_SECONDS)
    record_testsuite_property("seconds until batching has changed", round(time.monotonic() - began, 1))
    assert semantic.state(pod)["batch_sizes"]["semantic"] <= 17
    until(lambda: semantic.get()["status"]["batchingGeneration"] == generation, PATIENCE)
    assert restarts(semantic) == before


def restarts(semantic: Room) -> dict[str, int]:
    """How often the container of each pod has been started anew."""
    return {
        pod["metadata"]["uid"]: sum(one["restartCount"] for one in pod["status"]["containerStatuses"])
        for pod in semantic.pods()
    }


@pytest.mark.requirement("O2", "O4")
def test_a_model_comes_and_goes(semantic: Room, spec: Plain, as_administrator: None) -> None:
    """A fourth model in the manifest rolls out and can be asked, and its state is told; taken out, it is refused as
    unknown while the others answer.
    """
    more = {"name": "graph", "source": spec["models"][0]["source"], "dtype": "Float32", "dimensions": 64}
    semantic.apply(spec | {"models": [*spec["models"], more]})
    semantic.ready()
    told = {one["name"]: one for one in semantic.get()["status"]["models"]}
    assert (told["graph"]["state"], told["graph"]["dimensions"]) == ("Ready", 64)
    with connected(semantic) as service:
        assert service.embed("a node", model="graph").shape == (64,)
    semantic.apply(spec)
    semantic.ready()
    with connected(semantic) as service:
        with pytest.raises(RequestRejected, match="graph"):
            service.embed("a node", model="graph")
        assert service.embed("a node").shape == (384,)
    assert "graph" not in [one["name"] for one in semantic.get()["status"]["models"]]


@pytest.mark.requirement("O1")
def test_replicas_follow_the_scale(semantic: Room) -> None:
    """`kubectl scale` goes through the CRD's own subresource: a second pod becomes ready, and leaves again."""
    first = semantic.uids()
    semantic.kubectl("scale", "embed", semantic.name, "--replicas=2")
    until(lambda: semantic.get()["status"]["readyReplicas"] == 2, PATIENCE)
    assert semantic.uids() > first
    semantic.kubectl("scale", "embed", semantic.name, "--replicas=1")
    until(lambda: len(semantic.pods()) == 1, PATIENCE)
    semantic.ready()


@pytest.mark.requirement("O1")
def test_drift_is_repaired(semantic: Room) -> None:
    """A deleted Service comes back, and what somebody changed in the Deployment is put back, within 30 s."""
    old = semantic.get("service")["metadata"]["uid"]
    semantic.kubectl("delete", "service", semantic.name)
    semantic.patch({"spec": {"replicas": 3}}, "deployment")
    until(lambda: semantic.get("service")["metadata"]["uid"] != old, REPAIR_SECONDS)
    until(lambda: semantic.get("deployment")["spec"]["replicas"] == 1, REPAIR_SECONDS)
    semantic.ready()


@pytest.mark.requirement("O1")
def test_what_is_deleted_leaves_nothing(semantic: Room) -> None:
    """After `kubectl delete` every child goes, and pods drain; claims and what the namespace had of its own stay."""
    claims = semantic.kubectl("get", "pvc", "-o", "name")
    semantic.kubectl("delete", "embed", semantic.name, f"--timeout={PATIENCE}s")
    label = f"embedfleet.dev/service={semantic.name}"
    until(lambda: not semantic.kubectl("get", CHILDREN, "-l", label, "-o", "name"), PATIENCE)
    left = semantic.kubectl("get", "serviceaccounts,configmaps,services,deployments", "-o", "name").split()
    assert [name for name in left if semantic.name in name] == []
    assert semantic.kubectl("get", "pvc", "-o", "name") == claims
