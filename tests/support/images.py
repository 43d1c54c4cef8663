"""The real images, on a real node: fixtures for tests of whole pods.

`images` are built once and kept in the user's cache; `cluster_with_images` is a cluster whose node has them from the
start; `installed_operator` runs the operator there as a pod. A machine that cannot build images skips the test.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import store
from tests.cluster.cluster import Cluster
from tests.conftest import HARDWARE
from tests.support.clusters import require
from tools.images import building
from tools.images.building import Built
from tools.images.errors import CannotBuild
from tools.images.recipes import ROOT, operator, server

SYSTEM = "embedfleet-system"
"""The namespace of an operator that `installed_operator` installs."""

_ROLES = ROOT / "charts" / "embedfleet" / "generated" / "roles.yaml"
_KEEP_SECONDS = 14 * 24 * 3600
Plain = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Images:
    """The images of this tree, as they are now."""

    server: Built
    operator: Built

    def all(self) -> tuple[Built, ...]:
        """Both."""
        return self.server, self.operator


@pytest.fixture(scope="session")
def images() -> Images:
    """The server's image for CPUs and the operator's, built where they are not in the cache."""
    try:
        return Images(*building.build([server("cpu"), operator()]))
    except CannotBuild as lack:
        pytest.skip(str(lack) if lack.curable else f"{HARDWARE}{lack}")


@pytest.fixture(scope="session")
def cluster_with_images(images: Images) -> Iterator[Cluster]:
    """A cluster with a node that has `images`, and that serves EmbeddingServices."""
    with running_with(images) as made:
        made.kubectl("apply", "--validate=strict", "-f", str(ROOT / "crds"))
        made.kubectl("wait", "crd", "--all", "--for=condition=Established", "--timeout=60s")
        yield made


@contextmanager
def running_with(images: Images, nodes: int = 1) -> Iterator[Cluster]:
    """A cluster while it runs, whose `nodes` have `images`; skips the test where the machine lacks something."""
    require(nodes)
    with Cluster(nodes, store=store_of(images)) as made:
        load(made, images)
        yield made


def load(cluster: Cluster, images: Images) -> None:
    """Give the last layers of `images` to the nodes, which have the others."""
    for built in images.all():
        cluster.load_image(built.write_last_layer(cluster.directory / f"{built.recipe.name}.tar"))


def store_of(images: Images) -> Path:
    """The lower layers of `images` as nodes begin with them, unpacked where the cache has them not; root only."""
    names = [store.version(), *(built.base_name for built in images.all())]
    found = building.place() / "stores" / hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
    with building.locked(found.parent):
        if not found.exists():
            _forget_old(found.parent, time.time())
            _unpack(images, found)
        os.utime(found)
    return found


def _unpack(images: Images, target: Path) -> None:
    began = time.monotonic()
    layers = [layer.path for built in images.all() for layer in built.image.layers[:-1]]
    store.make(target, [built.write_lower_layers for built in images.all()], layers)
    building.say_to_stderr(f"unpacked the images for nodes in {time.monotonic() - began:.0f} s")


def _forget_old(folder: Path, now: float) -> None:
    for path in folder.iterdir():
        if path.is_dir() and now - path.stat().st_mtime > _KEEP_SECONDS:
            shutil.rmtree(path)


@dataclass(frozen=True, slots=True)
class Installed:
    """An operator that runs as pods."""

    cluster: Cluster
    namespace: str

    def logs(self) -> str:
        """What it wrote."""
        return self.cluster.kubectl("-n", self.namespace, "logs", "deployment/embedfleet-operator", "--tail=-1")


@contextmanager
def installed_operator(
    cluster: Cluster, images: Images, *, namespace: str = SYSTEM, replicas: int = 1
) -> Iterator[Installed]:
    """The operator of `images` at work on the whole of `cluster`, with the generated roles; gone afterwards."""
    objects = operator_objects(images, namespace, replicas)
    cluster.kubectl("apply", "--validate=strict", "-f", str(_ROLES))
    cluster.kubectl(
        "apply",
        "--validate=strict",
        "-f",
        "-",
        stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}),
    )
    try:
        cluster.kubectl("-n", namespace, "rollout", "status", "deployment/embedfleet-operator", "--timeout=120s")
        yield Installed(cluster, namespace)
    finally:
        cluster.kubectl("delete", "clusterrolebinding", namespace, "--ignore-not-found")
        cluster.kubectl("delete", "namespace", namespace, "--wait=false")


def operator_objects(images: Images, namespace: str, replicas: int) -> list[Plain]:
    """What makes an operator of the whole cluster, but for the roles."""
    account = {"kind": "ServiceAccount", "name": "operator", "namespace": namespace}
    return [
        restricted(namespace),
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "operator", "namespace": namespace}},
        _binding("ClusterRoleBinding", "embedfleet-operator", account, {"name": namespace}),
        _binding("RoleBinding", "embedfleet-operator-lease", account, {"name": "lease", "namespace": namespace}),
        _deployment(images, namespace, replicas),
    ]


def restricted(namespace: str) -> Plain:
    """A namespace that takes only pods of the Pod Security Standard `restricted`."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}


def _binding(kind: str, role: str, account: Plain, metadata: Plain) -> Plain:
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
    made = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": metadata}
    return {**made, "subjects": [account], "roleRef": reference}


def _deployment(images: Images, namespace: str, replicas: int) -> Plain:
    labels = {"app": "embedfleet-operator"}
    pod = {"serviceAccountName": "operator", "containers": [_container(images)], **_TEMPORARY}
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    metadata = {"name": "embedfleet-operator", "namespace": namespace}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def _container(images: Images) -> Plain:
    return {
        "name": "operator",
        "image": images.operator.name,
        "args": ["--server-image", images.server.name],
        "ports": [{"name": "observe", "containerPort": 8081}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "observe"}, "periodSeconds": 1, "timeoutSeconds": 5},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }


_TEMPORARY: Plain = {"volumes": [{"name": "tmp", "emptyDir": {}}]}
