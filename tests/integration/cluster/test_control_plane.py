"""A control plane alone is a real API server: objects, users, roles, tokens, an audit log."""

import json
from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.errors import CommandFailed


def test_keeps_objects(cluster: Cluster, namespace: str) -> None:
    """A ConfigMap that is created can be read back, by the pinned version of Kubernetes."""
    cluster.kubectl("create", "configmap", "settings", "--from-literal=size=32", "-n", namespace)
    assert cluster.kubectl("get", "configmap", "settings", "-n", namespace, "-o", "jsonpath={.data.size}") == "32"
    assert json.loads(cluster.kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"] == "v1.35.4"


def test_controllers_run(cluster: Cluster, namespace: str) -> None:
    """A Deployment gets its ReplicaSet and Pods; without a node the scheduler says why none runs."""
    cluster.kubectl("create", "deployment", "web", "--image=test.local/pause:1", "-n", namespace)
    unscheduled = "--for=condition=PodScheduled=False"
    cluster.kubectl("wait", "pod", "--selector=app=web", "--for=create", "--timeout=60s", "-n", namespace)
    cluster.kubectl("wait", "pod", "--selector=app=web", unscheduled, "--timeout=60s", "-n", namespace)
    assert "no nodes available" in cluster.kubectl("get", "pods", "-n", namespace, "-o", "yaml")


def test_a_user_may_what_the_roles_say(cluster: Cluster, namespace: str) -> None:
    """A user by client certificate is refused until a role is bound to one of the user's groups."""
    readers = cluster.kubeconfig_for("ada", ["readers"])
    with pytest.raises(CommandFailed, match='User "ada" cannot list resource "configmaps"'):
        cluster.kubectl("get", "configmaps", "-n", namespace, kubeconfig=readers)
    cluster.kubectl("create", "rolebinding", "all", "--clusterrole=view", "--group=readers", "-n", namespace)
    assert "kube-root-ca.crt" in cluster.kubectl("get", "configmaps", "-n", namespace, kubeconfig=readers)


def test_a_service_account_is_known_by_its_token(cluster: Cluster, namespace: str) -> None:
    """The kubeconfig of a service account speaks as that account."""
    account = cluster.kubeconfig_for_account(namespace, "default")
    name = cluster.kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}", kubeconfig=account)
    assert name == f"system:serviceaccount:{namespace}:default"


def creations_by(cluster: Cluster, user: str) -> list[dict[str, Any]]:
    """The audit log's entries of what `user` created. An entry follows its answer, so a few more requests are made."""
    found: list[dict[str, Any]] = []
    for _ in range(50):
        told = [
            json.loads(line) for line in cluster.audit_log.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]
        ]
        found = [entry for entry in told if entry["user"]["username"] == user and entry["verb"] == "create"]
        if found:
            break
        cluster.kubectl("get", "--raw", "/readyz")
    return found


def test_the_audit_log_tells_who_asked_for_what(cluster: Cluster, namespace: str) -> None:
    """Each request stands in the audit log with user, verb, resource and the answer's code, and without its body."""
    grace = cluster.kubeconfig_for("grace", ["system:masters"])
    cluster.kubectl("create", "configmap", "noted", "--from-literal=secret=word", "-n", namespace, kubeconfig=grace)
    (written,) = creations_by(cluster, "grace")
    assert written["objectRef"] == {
        "resource": "configmaps",
        "namespace": namespace,
        "name": "noted",
        "apiVersion": "v1",
    }
    assert written["responseStatus"] == {"metadata": {}, "code": 201}
    assert not {"requestObject", "responseObject"} & set(written)


def test_whole_nodes_are_needed_for_images(cluster: Cluster) -> None:
    """A control plane alone says so when it is given an image."""
    with pytest.raises(ValueError, match="Cluster\\(nodes=1\\)"):
        cluster.load_image(cluster.kubeconfig)
