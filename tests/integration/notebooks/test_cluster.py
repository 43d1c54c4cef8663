"""The notebooks that need a cluster: 01 against a real server in a pod, 05 against the operator at work."""

import json
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from embedfleet.kube.access import SEE, proxying, rules
from tests.cluster.cluster import Cluster
from tests.support import notebooks, pods
from tests.support.cluster_objects import answer
from tests.support.clusters import running, with_contract
from tests.support.hollow_servers import HollowServers
from tests.support.operators import IMAGE, Place, working

pytestmark = pytest.mark.requirement("K1", "K4")


def laptop(kubeconfig: Path, folder: Path) -> dict[str, str]:
    """The environment of a kernel on a machine that has a kubeconfig and nothing else."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {"KUBECONFIG": str(kubeconfig), "XDG_RUNTIME_DIR": str(folder), "PATH": path}


@pytest.fixture
def town(cluster_with_node: Cluster) -> Iterator[Place]:
    """A namespace with the service `semantic` in one pod, and a user who may use the API server's proxy alone."""
    cluster, namespace = with_contract(cluster_with_node), f"notebook-{secrets.token_hex(3)}"
    cluster.kubectl("create", "namespace", namespace)
    pods.put(cluster, namespace, pods.manifest("semantic"), pods.service_object("semantic"))
    pods.put(cluster, namespace, pods.server_pod("one", "semantic"))
    pods.wait_ready(cluster, namespace, "one")
    url = f"http://semantic.{namespace}.svc:8080"
    ready = {"observedGeneration": 1, "replicas": 1, "readyReplicas": 1, "conditions": [pods.ready()]}
    pods.told(cluster, namespace, "semantic", url=url, **ready)
    yield Place(cluster, namespace)
    cluster.kubectl("delete", "namespace", namespace, "--wait=false")


def test_from_laptop_to_cluster(town: Place, tmp_path: Path) -> None:
    """With a kubeconfig and the rules of the proxy the notebook embeds; the doctor names the rule that is missing."""
    needs = (*SEE, *proxying("semantic", tls=False))
    text = "\n".join(
        ["apiVersion: rbac.authorization.k8s.io/v1", "kind: Role", "metadata: {name: person}", "rules:", rules(needs)]
    )
    town.kubectl("apply", "-f", "-", stdin=text)
    user = f"person-{secrets.token_hex(3)}"
    town.kubectl("create", "rolebinding", "person", "--role=person", f"--user={user}")
    environ = laptop(town.cluster.kubeconfig_for(user), tmp_path)
    whole = notebooks.run("01-from-laptop-to-cluster.ipynb", tmp_path, f"NAMESPACE = {town.namespace!r}", environ)
    assert notebooks.warned(whole) == []
    told, page = notebooks.said(whole), notebooks.html(whole)
    assert "by service proxy" in page
    assert f"namespace {town.namespace}" in page
    assert "'semantic' is reached by service proxy" in told
    assert "ServiceNotFound" in told
    assert 'resources: ["pods/portforward"], verbs: [get, create]' in told
    assert "<EmbedResult (500, 8) float32" in told
    assert notebooks.pictures(whole) == 1


@pytest.fixture(scope="module")
def hollow() -> Iterator[Cluster]:
    """A cluster with nodes that kwok pretends: pods are placed and become ready."""
    with running(hollow=2) as made:
        yield with_contract(made)


def test_operations(hollow: Cluster, tmp_path: Path) -> None:
    """Applied, ready, scaled, changed, rolled and deleted, with the operator at work; pods say what real ones would."""
    namespace = f"notebook-{secrets.token_hex(3)}"
    place = Place(hollow, namespace, "operations")
    place.kubectl("create", "namespace", namespace)

    def said(_: str) -> dict[str, Any]:
        found = json.loads(place.kubectl("get", "embed", "-o", "json"))["items"]
        newest = max((one["metadata"]["generation"] for one in found), default=1)
        return answer(newest, model={"name": "semantic"})

    try:
        more: dict[str, Any] = {"server_image": IMAGE, "resync_seconds": 1.0}
        with HollowServers(said) as servers, working(place, proxy=servers.url, **more):
            environ = laptop(hollow.kubeconfig, tmp_path)
            whole = notebooks.run("05-operations.ipynb", tmp_path, f"NAMESPACE = {namespace!r}", environ)
    finally:
        place.kubectl("delete", "namespace", namespace, "--wait=false")
    assert notebooks.warned(whole) == []
    told = notebooks.said(whole)
    assert "spec.replicas" in told
    assert "Ready, 1 of 1 pods ready" in told
    assert "Ready, 3 of 3 pods ready" in told
    assert f"<ClusterService '{namespace}/operations' Ready, 3 of 3 pods ready>" in told
    assert "no services" in told
    assert notebooks.pictures(whole) == 1
