"""Servers in pods: the real server with fake models, run by this machine's own interpreter in a cluster's node."""

import json
import os
import site
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.cluster.cluster import Cluster
from tests.cluster.errors import CommandFailed
from tests.cluster.images import PAUSE

ROOT = Path(__file__).resolve().parents[2]
LABEL = "embedfleet.dev/service"
KEY = "a-secret-key"

Plain = dict[str, Any]

_SERVER = """
import json, os, pathlib, sys
here = pathlib.Path("/scratch")
(here / "keys").mkdir()
(here / "keys" / "tenant").write_text({key!r})
(here / "models.json").write_text(json.dumps({settings!r}))
(here / "batching.json").write_text(json.dumps({batching!r}))
os.environ["TMPDIR"] = "/scratch"
keys = ["--api-keys", "/scratch/keys"] if {guarded!r} else []
for name, content in {tls!r}.items():
    (here / "tls").mkdir(exist_ok=True)
    (here / "tls" / name).write_bytes(content)
keys += ["--tls", "/scratch/tls"] if {tls!r} else []
options = ["--settings", "/scratch", "--runtime", "/scratch/run", "--host", "0.0.0.0", "--port", "8080", *keys]
os.execv(sys.executable, [sys.executable, "-m", "tests.support.serve_fake", *options])
"""


def manifest(name: str, *models: str, **spec: Any) -> Plain:
    """An EmbeddingService with these models."""
    whole = {"models": [{"name": one, "source": {"path": f"/models/{one}"}} for one in models or (name,)]}
    return {
        "apiVersion": "embedfleet.dev/v1alpha1",
        "kind": "EmbeddingService",
        "metadata": {"name": name},
        "spec": {**whole, "gpu": {"count": 0}, **spec},
    }


def server_pod(
    name: str,
    service: str,
    *models: str,
    guarded: bool = False,
    tls: Mapping[str, bytes] | None = None,
    environ: Mapping[str, str] | None = None,
    batching: Mapping[str, Any] | None = None,
) -> Plain:
    """A pod that serves `models`; with `guarded` it asks for `KEY`, with `tls` it has these files of a pair.

    `environ` are variables of `serve_fake`, `batching` fields of the manifest's.
    """
    given = [{"name": one, "source": {"path": "unused"}} for one in models or (service,)]
    settings = {"service": service, "gpuCount": 0, "models": given}
    values = {"batching": dict(batching)} if batching else {}
    program = _SERVER.format(key=KEY, settings=settings, batching=values, guarded=guarded, tls=dict(tls or {}))
    made = python_pod(name, program, environ)
    made["metadata"]["labels"][LABEL] = service
    container = made["spec"]["containers"][0]
    container["name"] = "server"
    container["ports"] = [{"name": "http", "containerPort": 8080}, {"name": "observe", "containerPort": 8081}]
    container["readinessProbe"] = {"httpGet": {"path": "/ready", "port": "observe"}, "periodSeconds": 1}
    return made


def python_pod(name: str, program: str, environ: Mapping[str, str] | None = None) -> Plain:
    """A pod that runs `program` with this machine's interpreter, libraries and work tree, which are mounted."""
    search = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = [str(ROOT), *(path for path in search if path), *site.getsitepackages(), *_installed()]
    given = {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), "HF_HUB_OFFLINE": "1", **(environ or {})}
    kept = _outermost([sys.base_prefix, sys.prefix, "/usr", "/lib", "/lib64", *paths])
    container = {
        "name": "only",
        "image": PAUSE,
        "imagePullPolicy": "Never",
        "command": [os.path.realpath(sys.executable), "-P", "-c", program],
        "env": [{"name": key, "value": value} for key, value in given.items()],
        "volumeMounts": [
            *({"name": f"v{i}", "mountPath": path, "readOnly": True} for i, path in enumerate(kept)),
            {"name": "scratch", "mountPath": "/scratch"},
        ],
    }
    volumes: list[Plain] = [
        *({"name": f"v{i}", "hostPath": {"path": os.path.realpath(path)}} for i, path in enumerate(kept)),
        {"name": "scratch", "emptyDir": {}},
    ]
    spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        "volumes": volumes,
    }
    metadata = {"name": name, "labels": {"app": name}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def service_object(name: str) -> Plain:
    """The Service that the operator makes."""
    ports = [{"name": "http", "port": 8080, "targetPort": "http"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {LABEL: name}, "ports": ports},
    }


def told(cluster: Cluster, namespace: str, name: str, **status: Any) -> None:
    """Write a status, as the operator would."""
    body = json.dumps({"status": status})
    cluster.kubectl("-n", namespace, "patch", "embed", name, "--subresource=status", "--type=merge", "-p", body)


def ready(generation: int = 1, *, holds: bool = True, reason: str = "Serving", message: str = "") -> Plain:
    """The condition Ready."""
    when = "2026-01-01T00:00:00Z"
    status = "True" if holds else "False"
    made = {"type": "Ready", "status": status, "reason": reason, "message": message}
    return {**made, "observedGeneration": generation, "lastTransitionTime": when}


def put(cluster: Cluster, namespace: str, *objects: Plain) -> None:
    """Apply some objects."""
    listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    cluster.kubectl("-n", namespace, "apply", "-f", "-", stdin=json.dumps(listed))


def wait_ready(cluster: Cluster, namespace: str, *pods: str) -> None:
    """Until these pods are ready. Raises `CommandFailed` with what the node and the pods say of it."""
    names = [f"pod/{one}" for one in pods]
    try:
        cluster.kubectl("-n", namespace, "wait", *names, "--for=condition=Ready", "--timeout=300s")
    except CommandFailed as error:
        raise CommandFailed("\n".join([str(error), *_heard(cluster, namespace, pods)])) from None


def wait_succeeded(cluster: Cluster, namespace: str, pod: str, seconds: int = 300) -> None:
    """Until this pod has ended well. Raises `CommandFailed` with what the node and the pod say when it has not."""
    about = ("-n", namespace, f"pod/{pod}")
    why = "{.status.containerStatuses[0].state.terminated.reason}"
    try:
        cluster.kubectl("wait", *about, f"--for=jsonpath={why}", f"--timeout={seconds}s")
        reason = cluster.kubectl("get", *about, "-o", f"jsonpath={why}")
    except CommandFailed as error:
        reason = str(error)
    if reason != "Completed":
        raise CommandFailed("\n".join([f"pod {pod}: {reason}", *_heard(cluster, namespace, [pod])]))


def _heard(cluster: Cluster, namespace: str, pods: Sequence[str]) -> Iterator[str]:
    """What may explain that pods do not start: the nodes, the events, and what each pod printed last."""
    asked = [
        ("describe", "nodes"),
        ("-n", namespace, "get", "pods", "-o", "wide"),
        ("-n", namespace, "get", "events", "--sort-by=.lastTimestamp"),
        *(("-n", namespace, "logs", one, "--tail=40") for one in pods),
    ]
    for words in asked:
        try:
            yield f"$ kubectl {' '.join(words)}\n{cluster.kubectl(*words)}"
        except CommandFailed as error:
            yield str(error)


def _installed() -> list[str]:
    """Where packages lie, those installed from a work tree too: on PYTHONPATH their .pth files are not read."""
    return [str(path) for path in map(Path, sys.path) if path.is_dir()]


def _outermost(paths: Sequence[str]) -> list[str]:
    """The folders among `paths` that lie in no other of them; each exists."""
    real = dict.fromkeys(str(Path(path).absolute()) for path in paths if Path(path).is_dir())
    return [one for one in real if not any(one != other and Path(one).is_relative_to(other) for other in real)]
