"""From a plan to a kind cluster that answers, and back."""

import json
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import yaml

from tests.cluster import store
from tests.cluster.certificates import write_private
from tests.cluster.commands import kubectl
from tests.cluster.errors import CommandFailed
from tests.cluster.machine import ROOT
from tests.cluster.processes import Processes
from tests.kind import config, own_docker
from tests.kind.node_image import NAME, NodeImage
from tests.kind.plan import KindPlan
from tests.kind.programs import docker, kind

CONFIG = ROOT / "tests" / "kind" / "kind.yaml"
_LOOPBACK = "127.0.0.1"
_PKI = "/etc/kubernetes/pki"
Say = Callable[[str], None]


def bring_up(plan: KindPlan, processes: Processes, held: ExitStack, say: Say) -> None:
    """All that is planned, until pods can run (DNS comes later); `held` keeps what must stay open.

    Raises `ClusterError`.
    """
    url = _start_docker(plan, processes, held) if plan.own else None
    if url:
        say("Docker")
    _create(plan)
    say("kind create cluster")
    _write_kubeconfig(plan, url)
    _copy_authority(plan)
    processes.wait_for("the default service account", lambda: _has_default_account(plan), "kind")
    kubectl(plan, "wait", "node", "--all", "--for=condition=Ready", "--timeout=120s")
    say("node")


def delete(plan: KindPlan) -> None:
    """Undo `bring_up`, however far that came; a Docker of our own stays. Raises `CommandFailed`."""
    if not plan.own or plan.docker_socket.exists():
        kind(plan, "delete", "cluster", "--kubeconfig", str(plan.kind_kubeconfig))


def _start_docker(plan: KindPlan, processes: Processes, held: ExitStack) -> str:
    """The URL that leads to the API server from this machine."""
    NodeImage(Path(plan.image), plan.programs).begin_with(plan.docker_data)
    if plan.store:
        store.begin_with(plan.store, plan.containerd_data)
    listener = held.enter_context(socket.create_server((_LOOPBACK, 0), backlog=512))
    own_docker.start(plan, processes, listener)
    return f"https://{_LOOPBACK}:{listener.getsockname()[1]}"


def _create(plan: KindPlan) -> None:
    told = config.of(plan, CONFIG.read_text(encoding="utf-8"))
    plan.config.write_text(yaml.safe_dump(told, sort_keys=False), encoding="utf-8")
    image = ["--image", NAME] if plan.own else []
    kind(plan, "create", "cluster", "--config", str(plan.config), "--kubeconfig", str(plan.kind_kubeconfig), *image)


def _write_kubeconfig(plan: KindPlan, url: str | None) -> None:
    """As kind wrote it, with the address that is good for this machine."""
    told = yaml.safe_load(plan.kind_kubeconfig.read_text(encoding="utf-8"))
    if url:
        told["clusters"][0]["cluster"]["server"] = url
    write_private(plan.admin, json.dumps(told).encode())


def _copy_authority(plan: KindPlan) -> None:
    """For kubeconfigs of other users than the administrator."""
    for name in ("ca.key", "ca.crt"):
        write_private(plan.keys / name, docker(plan, "exec", plan.container, "cat", f"{_PKI}/{name}").encode())


def _has_default_account(plan: KindPlan) -> bool:
    try:
        kubectl(plan, "-n", "default", "get", "serviceaccount", "default")
    except CommandFailed:
        return False
    return True
