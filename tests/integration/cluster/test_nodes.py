"""On a whole node pods run: containers, logs, names, Services, and GPUs that are only said to be there."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.addresses import NOWHERE
from tests.cluster.cluster import Cluster
from tests.cluster.errors import CommandFailed
from tests.cluster.images import PAUSE, write_image
from tests.cluster.leftovers import assert_nothing_left, look
from tests.support.clusters import running

SERVE = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8080)"
ASK = """
import urllib.request
while True:
    try:
        print(urllib.request.urlopen("http://{host}", timeout=1).status)
        break
    except OSError as error:  # not there yet
        last = error
"""


ASTRAY = (
    f"""
import socket
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"", ("{NOWHERE}", 9))
"""
    + ASK
)
"""Something else is sent to an address that nobody has: a look-up of a registry's name, a packet ahead of the rules."""


def pod(name: str, container: dict[str, Any], **spec: Any) -> str:
    """The manifest of a pod of one container, which runs the pause image unless it says otherwise."""
    container = {"name": "only", "image": PAUSE, "imagePullPolicy": "Never"} | container
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container]} | spec
    metadata = {"name": name, "labels": {"app": name}}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


def python_pod(name: str, program: str, **spec: Any) -> str:
    """A pod that runs `program` by this machine's own interpreter, which is mounted where it lies here."""
    paths = {"/usr", "/lib", "/lib64", str(Path(sys.base_prefix).resolve())}
    mounts = sorted(path for path in paths if Path(path).exists() and path.count("/usr/") == 0)
    container = {
        "command": [os.path.realpath(sys.executable), "-c", program],
        "volumeMounts": [{"name": f"v{i}", "mountPath": path, "readOnly": True} for i, path in enumerate(mounts)],
    }
    volumes = [{"name": f"v{i}", "hostPath": {"path": os.path.realpath(path)}} for i, path in enumerate(mounts)]
    return pod(name, container, volumes=volumes, **spec)


def wait_for_end(cluster: Cluster, name: str) -> str:
    """What the container of the pod `name` wrote, once it has ended well."""
    cluster.kubectl("wait", f"pod/{name}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    return cluster.kubectl("logs", name)


def test_a_pod_runs_and_is_heard(cluster_with_node: Cluster) -> None:
    """A pod of the pause image becomes Ready on the node, and its log can be read."""
    cluster = cluster_with_node
    cluster.kubectl("apply", "-f", "-", stdin=pod("heard", {}))
    cluster.kubectl("wait", "pod/heard", "--for=condition=Ready", "--timeout=60s")
    assert cluster.kubectl("logs", "heard") == "paused\n"
    assert cluster.kubectl("get", "pod", "heard", "-o", "jsonpath={.spec.nodeName}") == "node1"


def test_an_image_without_a_registry(cluster_with_node: Cluster, tmp_path: Path) -> None:
    """An image that is written here and loaded runs its own program, with a folder and a link where it says."""
    cluster = cluster_with_node
    image, program = "test.local/kubectl:1", {"/box/kubebox": cluster.programs / "kubebox"}
    links = {"/kubectl": "/box/kubebox"}
    archive = write_image(
        tmp_path / "image.tar", image, program, links=links, folders=["/box"], entrypoint=["/kubectl"]
    )
    cluster.load_image(archive)
    cluster.kubectl("apply", "-f", "-", stdin=pod("loaded", {"image": image, "args": ["version", "--client"]}))
    assert "v1.35.4" in wait_for_end(cluster, "loaded")


def test_what_is_no_image_is_refused(cluster_with_node: Cluster, tmp_path: Path) -> None:
    """An archive that is none is refused by its name."""
    (tmp_path / "no.tar").write_text("no archive")
    with pytest.raises(CommandFailed, match=r"no\.tar"):
        cluster_with_node.load_image(tmp_path / "no.tar")


def test_a_service_has_a_name_and_an_address(cluster_with_node: Cluster) -> None:
    """A pod reaches another by the name of its Service, and so does the API server's proxy."""
    cluster = cluster_with_node
    cluster.kubectl("apply", "-f", "-", stdin=python_pod("served", SERVE))
    cluster.kubectl("expose", "pod", "served", "--port=80", "--target-port=8080")
    cluster.kubectl("apply", "-f", "-", stdin=python_pod("asking", ASK.format(host="served.default.svc.cluster.local")))
    assert wait_for_end(cluster, "asking") == "200\n"
    proxy = "/api/v1/namespaces/default/services/served:80/proxy/"
    assert "Directory listing" in cluster.kubectl("get", "--raw", proxy)


def test_pretended_gpus_are_shared_out(cluster_with_node: Cluster) -> None:
    """With 4 GPUs said to be there a pod that asks for 3 runs, and a second one waits for want of them."""
    cluster = cluster_with_node
    cluster.pretend_gpus("node1", 4)
    for name, condition in {"first": "Ready", "second": "PodScheduled=False"}.items():
        limits = {"resources": {"limits": {"nvidia.com/gpu": 3}}}
        cluster.kubectl("apply", "-f", "-", stdin=pod(name, limits))
        cluster.kubectl("wait", f"pod/{name}", f"--for=condition={condition}", "--timeout=60s")
    assert "Insufficient nvidia.com/gpu" in cluster.kubectl("get", "pod", "second", "-o", "yaml")


def test_nodes_reach_each_other_and_leave_nothing() -> None:
    """Pods on different nodes talk, by address and through a Service, whatever else is sent out of the cluster; of
    nodes, pods, bridges, rules, mounts and groups nothing is left afterwards.
    """
    before = look()
    with running(nodes=2) as cluster:
        assert cluster.kubectl("get", "nodes", "-o", "name").split() == ["node/node1", "node/node2"]
        cluster.kubectl("apply", "-f", "-", stdin=python_pod("far", SERVE, nodeName="node2"))
        cluster.kubectl("wait", "pod/far", "--for=condition=Ready", "--timeout=60s")
        host = cluster.kubectl("get", "pod", "far", "-o", "jsonpath={.status.podIP}") + ":8080"
        cluster.kubectl("expose", "pod", "far", "--port=80", "--target-port=8080")
        programs = {"near": ASK.format(host=host), "astray": ASTRAY.format(host="far.default.svc.cluster.local")}
        for name, program in programs.items():
            cluster.kubectl("apply", "-f", "-", stdin=python_pod(name, program, nodeName="node1"))
            assert wait_for_end(cluster, name) == "200\n"
    assert_nothing_left(cluster.directory, before)
