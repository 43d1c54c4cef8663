"""The first process of a cluster's namespaces: `python -m tests.cluster.inside DIRECTORY (--listen FD | --node N)`.

It starts the control plane and the first node, or one more node in namespaces below those, and then takes in every
process that lost its parent. It ends when one of its programs ends: a cluster without it is none.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

from tests.cluster import hollow, namespaces, node
from tests.cluster.addresses import CONTROL_PLANE
from tests.cluster.api import Api
from tests.cluster.control_plane import ControlPlane
from tests.cluster.errors import StartFailed
from tests.cluster.machine import ROOT
from tests.cluster.plan import Plan
from tests.cluster.processes import Processes

API_PORT = 6443


def main(arguments: list[str]) -> int:
    """Bring up, then serve until killed; it ends by itself only for a reason, which it tells on standard error."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--listen", type=int, help="the socket on the host that leads to the API server")
    parser.add_argument("--node", type=int, default=1)
    asked = parser.parse_args(arguments)
    plan = Plan.load(asked.directory)
    processes = Processes(plan.logs)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # only a SIGKILL from outside ends the first process of a namespace
    try:
        namespaces.cover(plan.node(asked.node))
        if asked.node == 1:
            _first(plan, processes, asked.listen)
        else:
            _further(plan, processes, asked.node)
        _take_in(processes)
    except StartFailed as failure:
        print(failure, file=sys.stderr)
    return 1


def _first(plan: Plan, processes: Processes, listen: int) -> None:
    namespaces.make_network()
    control_plane = ControlPlane(plan, advertised=CONTROL_PLANE, reached="0.0.0.0", api=API_PORT, etcd=2379, peers=2380)
    control_plane.start(processes)
    node.start_runtime(plan, 1, processes)
    module = (sys.executable, "-m", "tests.cluster.forward", str(listen), str(API_PORT))
    processes.start("forward", *module, keep=[listen], folder=ROOT)
    processes.wait_for("the API server", Api(control_plane.url, plan.keys).ready, "kube-apiserver")
    control_plane.start_controllers(processes)
    node.start_node(plan, 1, processes)
    node.start_names(plan, processes)
    for index in range(2, plan.nodes + 1):
        _add(plan, processes, index)
    if plan.hollow:
        hollow.start_hollow(plan, processes)


def _add(plan: Plan, processes: Processes, index: int) -> None:
    module = (sys.executable, "-m", "tests.cluster.inside", plan.directory, "--node", str(index))
    started = processes.start(f"node{index}", *namespaces.namespaced(module), folder=ROOT)
    here, there = Path("/proc/self/ns/net"), Path(f"/proc/{started.pid}/ns/net")
    processes.wait_for(f"node {index}'s network", lambda: there.readlink() != here.readlink(), f"node{index}")
    namespaces.connect(index, started.pid)


def _further(plan: Plan, processes: Processes, index: int) -> None:
    processes.wait_for("the cable to the bridge", lambda: namespaces.has_link("eth0"), f"node{index}")
    namespaces.join_network(index, plan.nodes)
    node.start_runtime(plan, index, processes)
    node.start_node(plan, index, processes)


def _take_in(processes: Processes) -> None:
    """Wait for whatever ends: containers and what holds them come and go. Raises `StartFailed` for a program."""
    while True:
        pid, status = os.wait()
        if name := processes.name_of(pid):
            told = f"{name} ended with status {os.waitstatus_to_exitcode(status)}\n{processes.tail(name)}"
            raise StartFailed(told)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
