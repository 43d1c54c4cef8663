"""The images as pods: the operator's makes the server's, and the server answers with real vectors."""

import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.cluster.cluster import Cluster
from tests.support.images import Images, Installed, installed_operator, restricted
from tests.support.operators import Place, until
from tools.weights import fill, packaged_model

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "embeddingservice.yaml"
USER = 65532
TEXTS = ["a text", "parse a date from a string", "Kubernetes schedules pods onto nodes"]
COSINE = 0.99999  # requirement S2
Plain = dict[str, Any]


@pytest.fixture(scope="module")
def operator(cluster_with_images: Cluster, images: Images) -> Iterator[Installed]:
    """The operator, installed."""
    with installed_operator(cluster_with_images, images) as installed:
        yield installed


@pytest.fixture(scope="module")
def place(cluster_with_images: Cluster) -> Iterator[Place]:
    """A namespace of restricted pod security."""
    name = f"e2e-{secrets.token_hex(4)}"
    cluster_with_images.kubectl("create", "-f", "-", stdin=json.dumps(restricted(name)))
    yield Place(cluster_with_images, name)
    cluster_with_images.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def semantic(
    operator: Installed, place: Place, tmp_path_factory: pytest.TempPathFactory, record_testsuite_property: Any
) -> Iterator[Place]:
    """The example's service, Ready, its weights in a store that a claim holds."""
    del operator
    claim(place, store_of(tmp_path_factory.mktemp("store")))
    manifest = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    manifest["spec"]["weights"] = {"cache": {"persistentVolumeClaim": "weights"}}
    manifest["spec"]["drain"] = {"propagationSeconds": 1, "quietSeconds": 1, "maxLameDuckSeconds": 5}
    began = time.monotonic()
    place.kubectl("apply", "--validate=strict", "-f", "-", stdin=json.dumps(manifest))
    until(lambda: ready(place), seconds=240)
    embed(place, TEXTS[:1])
    record_testsuite_property("seconds_from_apply_to_first_vector", round(time.monotonic() - began, 1))
    yield place
    place.kubectl("delete", "embed", place.name)
    place.cluster.kubectl("delete", "persistentvolume", place.namespace, "--wait=false")  # its claim goes later


def store_of(folder: Path) -> Path:
    """A store with the weights, which the pods' user may write to."""
    folder.chmod(0o755)
    fill(folder)
    for path in (folder, *folder.rglob("*")):
        if path.is_file() and path.stat().st_nlink > 1:  # a hard link into the package, whose owner stays
            copy = path.with_name(f"{path.name}.copy")
            shutil.copyfile(path, copy)
            copy.rename(path)
        os.chown(path, USER, USER)
    return folder


def claim(place: Place, folder: Path) -> None:
    """The claim `weights`: `folder` of the node, which is this machine's."""
    size = {"storage": "1Gi"}
    volume = {"capacity": size, "accessModes": ["ReadWriteMany"], "hostPath": {"path": str(folder)}}
    asked = {"accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeName": place.namespace}
    items = [
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": place.namespace}, "spec": volume},
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "weights"},
            "spec": {**asked, "resources": {"requests": size}},
        },
    ]
    for item in items:
        place.kubectl("create", "-f", "-", stdin=json.dumps(item))


def ready(place: Place) -> bool:
    """Whether the service says so; a pod that cannot start ends the wait with its reason."""
    condition = place.condition()
    assert condition["reason"] not in ("ImagePullBackOff", "ModelLoadFailed", "CrashLoop"), condition
    return bool(condition["status"] == "True")


def embed(place: Place, texts: list[str], model: str = "semantic") -> np.ndarray:
    """The vectors of `texts`, through the API server's proxy."""
    where = f"/api/v1/namespaces/{place.namespace}/services/{place.name}:http/proxy/v1/embeddings"
    body = json.dumps({"model": model, "input": texts})
    told = json.loads(place.kubectl("create", "--raw", where, "-f", "-", stdin=body))
    return np.array([one["embedding"] for one in told["data"]], dtype=np.float32)


@pytest.mark.requirement("O1", "S2", "S4")
def test_a_restricted_namespace_takes_the_pod(semantic: Place) -> None:
    """The pod that the operator made runs under the standard `restricted`, as user 65532 and with a root file system
    that cannot be written.
    """
    (pod,) = semantic.pods()
    assert pod["spec"]["securityContext"]["runAsUser"] == USER
    (container,) = pod["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    name = pod["metadata"]["name"]
    assert semantic.kubectl("exec", name, "--", "id", "-u").strip() == str(USER)
    refused = semantic.kubectl("exec", name, "--", "sh", "-c", "touch /opt/embedfleet/x 2>&1 || true")
    assert "Read-only file system" in refused


@pytest.mark.requirement("O1", "S2", "S4")
def test_the_init_container_found_the_weights(semantic: Place) -> None:
    """`python -m embedfleet_server.fetch` runs in the image, ends with 0, and says that the models are in the store."""
    (pod,) = semantic.pods()
    (fetched,) = pod["status"]["initContainerStatuses"]
    assert fetched["state"]["terminated"]["exitCode"] == 0
    said = semantic.kubectl("logs", pod["metadata"]["name"], "-c", fetched["name"])
    assert "model semantic is in the store" in said


@pytest.mark.requirement("O1", "S2", "S4")
def test_vectors_are_those_of_this_machine(semantic: Place) -> None:
    """What the pod answers is what sentence-transformers computes here of the same weights: cosine ≥ 0.99999."""
    from sentence_transformers import SentenceTransformer

    local = SentenceTransformer(str(packaged_model()), device="cpu").encode(TEXTS, normalize_embeddings=True)
    served = embed(semantic, TEXTS)
    cosines = (local * served).sum(axis=1) / np.linalg.norm(served, axis=1)
    assert served.shape == (len(TEXTS), 384)
    assert cosines.min() >= COSINE


@pytest.mark.requirement("O1", "S2", "S4")
def test_status_tells_of_the_pod(semantic: Place) -> None:
    """The operator's pod reads the server's pod: every model is Ready in the service's status."""
    models = until(lambda: semantic.get("embed")["status"].get("models"))
    assert {one["name"]: one["state"] for one in models} == {"semantic": "Ready", "code": "Ready", "entity": "Ready"}


COMPILING = """
import os, pathlib, subprocess, sysconfig
folder = pathlib.Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
folder.mkdir(parents=True, exist_ok=True)
source, made = folder / "x.cpp", folder / "x.so"
include = sysconfig.get_path("include")
for compiler, language in (("g++", "c++"), ("gcc", "c")):
    source.write_text("#include <Python.h>\\n" + ("#include <vector>\\n" if language == "c++" else ""))
    options = ["-shared", "-fPIC", "-fopenmp", "-I", include]
    subprocess.run([compiler, *options, "-x", language, "-o", made, source], check=True)
print("compiled")
"""


@pytest.mark.requirement("O1", "S2", "S4")
def test_the_pod_has_what_torch_compile_needs(semantic: Place) -> None:
    """A C++ compiler with OpenMP for a CPU, a C compiler for Triton, Python's headers, and a place to write to that is
    the pod's own; torch.compile itself takes minutes on a busy machine.
    """
    (pod,) = semantic.pods()
    assert semantic.kubectl("exec", pod["metadata"]["name"], "--", "python", "-c", COMPILING).strip() == "compiled"


@pytest.mark.requirement("O1", "S2", "S4")
def test_the_operator_is_refused_nothing(operator: Installed, semantic: Place) -> None:
    """With the generated roles the operator's pod has done its work without an error."""
    del semantic
    said = operator.logs()
    assert "Traceback" not in said
    assert "forbidden" not in said.lower()


@pytest.mark.requirement("O1", "S2", "S4")
def test_the_drain_hook_ends_well(semantic: Place) -> None:
    """`python -m embedfleet_server.drain` ends with 0 in the image, as does the server that it drained; a pod that is
    deleted has its hook run without an event that it failed, and another one takes its place.
    """
    (pod,) = semantic.pods()
    name = pod["metadata"]["name"]
    semantic.kubectl("exec", name, "--", "python", "-m", "embedfleet_server.drain")
    until(lambda: ended(semantic, name) == 0, seconds=60)
    until(lambda: restarted(semantic, name), seconds=120)  # by its own word: the service's is that of a moment ago
    until(lambda: ready(semantic), seconds=120)
    semantic.kubectl("delete", "pod", name)  # waits until it is gone
    until(lambda: [one for one in semantic.pods() if one["metadata"]["name"] != name])
    events = json.loads(semantic.kubectl("get", "events", "-o", "json"))["items"]
    assert [one["message"] for one in events if one["reason"] == "FailedPreStopHook"] == []


def ended(place: Place, pod: str) -> int | None:
    """The exit status of the server that ran in a pod before the one of now."""
    (server,) = place.get("pod", pod)["status"]["containerStatuses"]
    last = server["lastState"].get("terminated") or server["state"].get("terminated")
    return None if last is None else int(last["exitCode"])


def restarted(place: Place, pod: str) -> bool:
    """Whether the server of a pod takes requests, and is not its first one."""
    (server,) = place.get("pod", pod)["status"]["containerStatuses"]
    return bool(server["restartCount"] and server["ready"])
