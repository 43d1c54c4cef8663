"""The operator at work in a cluster that is kept up to try things on: `make cluster`, until `make cluster-down`."""

import subprocess
import sys
from pathlib import Path

import psutil

from tests.cluster.commands import kubectl
from tests.cluster.errors import StartFailed
from tests.cluster.machine import ROOT
from tests.cluster.plan import Plan
from tests.cluster.processes import environment, tail

_LINES = 25
_END_SECONDS = 30
_START_SECONDS = 60
CRDS = ROOT / "crds"


def start(directory: Path, image: str, environ: dict[str, str]) -> Path:
    """Let the cluster in `directory` serve EmbeddingServices and the operator look after them; gives its log.

    It runs until `stop`. Raises `CommandFailed` or `StartFailed`.
    """
    plan = Plan.load(directory)
    kubectl(plan, "apply", "-f", str(CRDS))
    kubectl(plan, "wait", "crd", "--all", "--for=condition=Established", f"--timeout={_START_SECONDS}s")
    kubectl(plan, "get", "embed", "--all-namespaces")  # refused for the first moments, in which kubectl tries again
    log = plan.logs / "operator.log"
    command = [sys.executable, "-m", "embedfleet_operator", "--kubeconfig", str(plan.admin), "--server-image", image]
    with log.open("ab") as file:
        running = subprocess.Popen(
            [*command, "--observe-port", "0"],
            cwd=ROOT,
            env=environment(environ),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,  # Ctrl-C is not its end
        )
    (directory / "operator.pid").write_text(str(running.pid), encoding="utf-8")
    try:
        kubectl(plan, "wait", "lease/embedfleet-operator", "--for=create", f"--timeout={_START_SECONDS}s")
    finally:
        if running.poll() is not None:
            raise StartFailed(f"the operator ended with status {running.returncode}\n{tail(log, _LINES)}")
    return log


def stop(directory: Path) -> None:
    """End the operator of the cluster in `directory`; does nothing when none runs."""
    running = process_of(directory)
    if running:
        running.terminate()
        try:
            running.wait(_END_SECONDS)
        except psutil.TimeoutExpired:
            running.kill()
            running.wait(_END_SECONDS)


def process_of(directory: Path) -> psutil.Process | None:
    """The operator of the cluster in `directory`; `None` when none runs."""
    try:
        process = psutil.Process(int((directory / "operator.pid").read_text(encoding="utf-8")))
        return process if str(directory / "kubeconfig") in process.cmdline() else None  # else the number was given anew
    except (FileNotFoundError, psutil.NoSuchProcess):
        return None
