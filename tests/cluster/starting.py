"""The two forms of a cluster: a control plane of plain processes, or whole nodes in namespaces."""

import datetime as dt
import json
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack

from tests.cluster import groups, hollow, namespaces
from tests.cluster.addresses import CONTROL_PLANE, NOWHERE
from tests.cluster.api import Api
from tests.cluster.commands import import_image, kubectl
from tests.cluster.control_plane import ControlPlane
from tests.cluster.images import PAUSE, write_image
from tests.cluster.inside import API_PORT
from tests.cluster.machine import ROOT
from tests.cluster.plan import Plan
from tests.cluster.processes import Processes
from tests.cluster.users import write_keys

NAMESPACES = "namespaces"
"""What the process is called that holds whole nodes."""

Say = Callable[[str], None]
_LOOPBACK = "127.0.0.1"


def bring_up(plan: Plan, processes: Processes, held: ExitStack, say: Say) -> None:
    """All that is planned, until all of it is ready; `held` keeps what must stay open. Raises `ClusterError`."""
    api = (_nodes if plan.nodes else _control_plane_alone)(plan, processes, held)
    say("API server")
    processes.wait_for("the default service account", api.has_default_account, "kube-controller-manager")
    say("controllers")
    if plan.nodes:
        _make_nodes_ready(plan, processes, api)
        say(f"{plan.nodes} nodes")
    if plan.hollow:
        _make_hollow_ready(plan, processes, api)
        say(f"{plan.hollow} hollow nodes")


def _control_plane_alone(plan: Plan, processes: Processes, held: ExitStack) -> Api:
    plane = ControlPlane(plan, NOWHERE, _LOOPBACK, *(_reserved_port(held) for _ in range(3)))
    write_keys(plan, plane.url, plane.url, dt.datetime.now(dt.UTC))
    plane.start(processes)
    api = Api(plane.url, plan.keys)
    processes.wait_for("the API server", api.ready, "kube-apiserver")
    plane.start_controllers(processes)
    if plan.hollow:
        hollow.start_hollow(plan, processes)
    return api


def _nodes(plan: Plan, processes: Processes, held: ExitStack) -> Api:
    listener = held.enter_context(socket.create_server((_LOOPBACK, 0), backlog=512))
    url = f"https://{_LOOPBACK}:{listener.getsockname()[1]}"
    write_keys(plan, url, f"https://{CONTROL_PLANE}:{API_PORT}", dt.datetime.now(dt.UTC))
    for index in range(1, plan.nodes + 1):
        plan.node(index).mkdir()
    groups.make(plan)
    module = (sys.executable, "-m", "tests.cluster.inside", plan.directory, "--listen", str(listener.fileno()))
    processes.start(NAMESPACES, *namespaces.namespaced(module), keep=[listener.fileno()], folder=ROOT)
    api = Api(url, plan.keys)
    processes.wait_for("the API server", api.ready, NAMESPACES)
    return api


def _make_nodes_ready(plan: Plan, processes: Processes, api: Api) -> None:
    pause = write_image(plan.directory / "pause.tar", PAUSE, {"/pause": plan.programs / "pause"}, entrypoint=["/pause"])
    for index in range(1, plan.nodes + 1):
        processes.wait_for(f"containerd of node {index}", plan.socket(index).exists, f"containerd{index}")
    import_image(plan, pause)
    processes.wait_for("the nodes", lambda: api.ready_nodes() == plan.nodes, "kubelet1")


def _make_hollow_ready(plan: Plan, processes: Processes, api: Api) -> None:
    made = hollow.nodes(plan.hollow, tainted=plan.nodes > 0)
    kubectl(plan, "create", "-f", "-", stdin=json.dumps(made))
    processes.wait_for("the hollow nodes", lambda: api.ready_nodes() == plan.nodes + plan.hollow, "kwok")


def _reserved_port(held: ExitStack) -> int:
    """A free port that stays ours: bound here and not listened on, while the program shares it (SO_REUSEPORT)."""
    reserved = held.enter_context(socket.socket())
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind((_LOOPBACK, 0))
    port: int = reserved.getsockname()[1]
    return port
