"""The product on kind, in short: created, loaded, installed by helm, asked by the SDK, changed, deleted.

The tests lie in the order of such a cluster's life, and each can run alone.
"""

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embedfleet as sdk
from tests.cluster import leftovers
from tests.cluster.build import binaries
from tests.kind.cluster import KindCluster
from tests.support.charts import CHART, RELEASE, Helm
from tests.support.images import SYSTEM, Images, restricted
from tests.support.kind_clusters import running_on_kind
from tests.support.operators import CHILDREN, Place, until
from tools.weights import packaged_model

TEXTS = ["a text", "parse a date from a string", "Kubernetes schedules pods onto nodes"]
COSINE = 0.99999  # requirement S2
WEIGHTS = "/weights"
"""Where the node sees them."""
RESOURCES = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"cpu": "2", "memory": "2Gi"}}
"""Less than a server asks for of itself: of two cores kubeadm's control plane has set 0.85 aside."""
Plain = dict[str, Any]


@dataclass(frozen=True)
class OnKind:
    """The cluster, and what this machine was like before it."""

    cluster: KindCluster
    before: leftovers.Host


@pytest.fixture(scope="module")
def on_kind(
    images: Images, tmp_path_factory: pytest.TempPathFactory, record_testsuite_property: Any
) -> Iterator[OnKind]:
    """A cluster by `kind create cluster`, the images given to it by `kind load image-archive`."""
    weights = tmp_path_factory.mktemp("weights")
    shutil.copytree(packaged_model(), weights / "minilm")
    weights.chmod(0o755)  # the pods' user is not root
    before, began = leftovers.look(), time.monotonic()
    with running_on_kind(images, {WEIGHTS: weights}) as cluster:
        record_testsuite_property("seconds_to_a_kind_cluster_with_images", round(time.monotonic() - began, 1))
        yield OnKind(cluster, before)


@pytest.fixture(scope="module")
def installed(on_kind: OnKind, images: Images, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """The chart, as `helm install --wait` leaves it, in a restricted namespace."""
    cluster = on_kind.cluster
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(restricted(SYSTEM)))
    helm = Helm(binaries("helm") / "helm", tmp_path_factory.mktemp("helm"), cluster.kubeconfig, SYSTEM)
    helm.run("install", RELEASE, str(CHART), "--wait", "--timeout", "180s", values=values(images))
    return helm


@pytest.fixture(scope="module")
def semantic(installed: Helm, on_kind: OnKind, record_testsuite_property: Any) -> Place:
    """The service, applied and Ready, its weights on a claim."""
    del installed
    place = Place(on_kind.cluster, "town")
    for item in objects(place):
        place.cluster.kubectl("create", "-f", "-", stdin=json.dumps(item))
    began = time.monotonic()
    place.kubectl("apply", "--validate=strict", "-f", "-", stdin=json.dumps(manifest()))
    until(lambda: ready(place), seconds=180)
    record_testsuite_property("seconds_from_apply_to_ready_on_kind", round(time.monotonic() - began, 1))
    return place


@pytest.fixture
def laptop(semantic: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with a kubeconfig and nothing else."""
    for name in ("EMBEDFLEET_URL", "EMBEDFLEET_NAMESPACE", "EMBEDFLEET_CA_FILE", "EMBEDFLEET_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(semantic.cluster.kubeconfig))


def values(images: Images) -> dict[str, str]:
    """The chart's values that name these images."""
    named = {"image": images.operator.name, "serverImage": images.server.name}
    parts = {key: name.rpartition(":") for key, name in named.items()}
    found = {f"{key}.repository": repository for key, (repository, _, _) in parts.items()}
    return found | {f"{key}.tag": tag for key, (_, _, tag) in parts.items()}


def objects(place: Place) -> list[Plain]:
    """A restricted namespace, a volume of the node's folder, and a claim to it."""
    size = {"storage": "1Gi"}
    volume = {"capacity": size, "accessModes": ["ReadOnlyMany"], "hostPath": {"path": WEIGHTS, "type": "Directory"}}
    asked = {"accessModes": ["ReadOnlyMany"], "storageClassName": "", "volumeName": "weights"}
    claim = {
        "metadata": {"name": "weights", "namespace": place.namespace},
        "spec": asked | {"resources": {"requests": size}},
    }
    return [
        restricted(place.namespace),
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "weights"}, "spec": volume},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **claim},
    ]


def manifest() -> Plain:
    """A service of MiniLM on CPUs that drains in no time."""
    source = {"volume": {"claimName": "weights", "path": "minilm"}}
    spec = {
        "models": [{"name": "semantic", "source": source, "dtype": "Float32"}],
        "gpu": {"count": 0},
        "drain": {"propagationSeconds": 1, "quietSeconds": 1, "maxLameDuckSeconds": 5},
        "podTemplate": {"spec": {"containers": [{"name": "server", "resources": RESOURCES}]}},
    }
    return {
        "apiVersion": "embedfleet.dev/v1alpha1",
        "kind": "EmbeddingService",
        "metadata": {"name": "semantic"},
        "spec": spec,
    }


def ready(place: Place) -> bool:
    """Whether the service says so; a pod that cannot start ends the wait with its reason."""
    condition = place.condition()
    assert condition["reason"] not in ("ImagePullBackOff", "ModelLoadFailed", "CrashLoopBackOff"), condition
    return bool(condition["status"] == "True")


@pytest.mark.requirement("K1", "O1", "O6", "S2")
def test_the_sdk_embeds_through_the_api_server(semantic: Place, laptop: None) -> None:
    """A laptop with kind's kubeconfig gets by the service's name what sentence-transformers computes there itself of
    the same weights: cosine ≥ 0.99999, by the API server's proxy.
    """
    from sentence_transformers import SentenceTransformer

    local = SentenceTransformer(str(packaged_model()), device="cpu").encode(TEXTS, normalize_embeddings=True)
    with sdk.connect("semantic", namespace=semantic.namespace) as service:
        assert service.route.taken is not None
        assert service.route.taken.route == "service proxy"
        served = service.embed(TEXTS)
    cosines = (local * served).sum(axis=1) / np.linalg.norm(served, axis=1)
    assert served.shape == (len(TEXTS), 384)
    assert cosines.min() >= COSINE


@pytest.mark.requirement("O2")
def test_batching_changes_without_a_restart(semantic: Place) -> None:
    """A batching value of the manifest is in force in the running server, as its `/state` tells; the pod is the same
    one, and its container was not started anew.
    """
    (before,) = semantic.pods()
    semantic.patch("embed", "semantic", {"spec": {"batching": {"maxBatchSize": 17}}})
    generation = semantic.get("embed")["metadata"]["generation"]
    until(lambda: state(semantic)["generation"] == generation, seconds=60)
    assert state(semantic)["batch_sizes"] == {"semantic": 17}
    until(lambda: ready(semantic) and semantic.get("embed")["status"]["batchingGeneration"] == generation)
    (after,) = semantic.pods()
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert [one["restartCount"] for one in after["status"]["containerStatuses"]] == [0]


def state(place: Place) -> Plain:
    """`/state` of the one pod, through the API server."""
    (pod,) = place.pods()
    where = f"/api/v1/namespaces/{place.namespace}/pods/{pod['metadata']['name']}:8081/proxy/state"
    found: Plain = json.loads(place.kubectl("get", "--raw", where))
    return found


@pytest.mark.requirement("O1", "O6")
def test_what_is_deleted_leaves_nothing(semantic: Place, installed: Helm) -> None:
    """`kubectl delete` takes the service's pods and objects with it; `helm uninstall` those of the operator."""
    semantic.kubectl("delete", "embed", "semantic")
    until(lambda: not semantic.all(f"{CHILDREN},replicasets,pods"), seconds=90)
    installed.uninstall()
    kinds = "deployments,pods,services,leases"
    until(lambda: not semantic.cluster.kubectl("-n", SYSTEM, "get", kinds, "-o", "name").split(), seconds=60)


@pytest.mark.requirement("O6")
def test_a_deleted_cluster_leaves_nothing_on_this_machine(on_kind: OnKind) -> None:
    """No process, mount, network interface, packet rule, control group or file of it is there afterwards."""
    directory = on_kind.cluster.directory
    assert leftovers.processes_of(directory)
    on_kind.cluster.close()
    leftovers.assert_nothing_left(directory, on_kind.before)
