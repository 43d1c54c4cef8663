"""A Docker for one cluster, where none runs: in namespaces of its own, and gone with them.

`python -m tests.kind.own_docker DIRECTORY FD` is the first process there. What kind publishes on 127.0.0.1 is in the
network of that Docker; the socket FD, made outside, leads to the API server.
"""

import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.cluster import namespaces
from tests.cluster.errors import StartFailed
from tests.cluster.machine import ROOT, find
from tests.cluster.processes import Processes
from tests.kind import programs
from tests.kind.plan import API_PORT, KindPlan

NAMESPACES = "namespaces"
"""What the process is called that holds it."""

_RUNTIME = "careful-runc"


def start(plan: KindPlan, processes: Processes, listener: socket.socket) -> None:
    """Return once it takes orders. Raises `StartFailed`."""
    binaries = plan.directory / "bin"
    binaries.mkdir()
    (binaries / "docker").symlink_to(programs.DOCKER)  # kind looks for it on the path
    _write_runtime(binaries / _RUNTIME)
    module = (sys.executable, "-m", "tests.kind.own_docker", plan.directory, str(listener.fileno()))
    processes.start(NAMESPACES, *namespaces.namespaced(module), keep=[listener.fileno()], folder=ROOT)
    processes.wait_for("Docker", lambda: _answers(plan), "dockerd")


def end(processes: Processes) -> None:
    """The kernel ends all that runs in it, mounts and packet rules with it."""
    if outer := processes.running(NAMESPACES):
        namespaces.end(outer)


def _write_runtime(target: Path) -> None:
    command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("runc.py")), str(find("runc"))]
    target.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n', encoding="utf-8")
    target.chmod(0o755)


def _answers(plan: KindPlan) -> bool:
    asked = [str(programs.DOCKER), "version"]
    return subprocess.run(asked, env=programs.environ(plan), capture_output=True, check=False).returncode == 0


def command(plan: KindPlan) -> list[str]:
    """dockerd, with nothing outside the cluster's folder but a /run of its own."""
    return [
        "dockerd",
        f"--data-root={plan.docker_data}",
        "--exec-root=/run/docker",
        "--pidfile=/run/docker.pid",
        f"--host=unix://{plan.docker_socket}",
        f"--cgroup-parent=/{plan.group}",
        "--storage-driver=overlay2",
        f"--add-runtime={_RUNTIME}={plan.directory / 'bin' / _RUNTIME}",
        f"--default-runtime={_RUNTIME}",
        "--log-level=warn",
    ]


def main(directory: Path, listen: int) -> int:
    """Run it until killed; it ends by itself only for a reason, which it tells on standard error."""
    plan = KindPlan.load(directory)
    processes = Processes(plan.logs)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # only a SIGKILL from outside ends the first process of a namespace
    try:
        namespaces.cover(plan.directory)
        namespaces.make_network()
        module = (sys.executable, "-m", "tests.cluster.forward", str(listen), str(API_PORT))
        processes.start("forward", *module, keep=[listen], folder=ROOT)
        processes.start("dockerd", *command(plan))
        _take_in(processes)
    except StartFailed as failure:
        print(failure, file=sys.stderr)
    return 1


def _take_in(processes: Processes) -> None:
    """Wait for whatever ends: what holds a container outlives its parent. Raises `StartFailed` for a program."""
    while True:
        pid, status = os.wait()
        if name := processes.name_of(pid):
            code = os.waitstatus_to_exitcode(status)
            raise StartFailed(f"{name} ended with status {code}\n{processes.tail(name)}")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
