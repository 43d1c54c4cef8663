"""kubectl and ctr, against one cluster."""

import subprocess
from pathlib import Path

from tests.cluster.errors import CommandFailed
from tests.cluster.plan import Plan


def kubectl(plan: Plan, *arguments: str, stdin: str | None = None, kubeconfig: Path | None = None) -> str:
    """What `kubectl ARGUMENTS` printed; `kubeconfig` says as whom (the administrator). Raises `CommandFailed`.

    What it remembers of the API stays with this cluster: the next one may have the same port.
    """
    whom, memory = f"--kubeconfig={kubeconfig or plan.admin}", f"--cache-dir={plan.directory / 'kubectl'}"
    return run(str(plan.programs / "kubectl"), whom, memory, *arguments, stdin=stdin)


def import_image(plan: Plan, archive: Path) -> None:
    """Give the image in `archive` (as `docker save` writes) to every node. Raises `CommandFailed`."""
    for index in range(1, plan.nodes + 1):
        run("ctr", "--address", str(plan.socket(index)), "--namespace", "k8s.io", "images", "import", str(archive))


def run(*command: str, stdin: str | None = None) -> str:
    """What `command` printed. Raises `CommandFailed` with what it said when it failed."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        words = " ".join(word for word in command if not word.startswith(("--kubeconfig", "--cache-dir")))
        raise CommandFailed(f"{words}: status {done.returncode}: {done.stderr.strip()}")
    return done.stdout
