"""kind and docker, against the Docker of one cluster."""

import os
import subprocess
from pathlib import Path

from tests.cluster.errors import CommandFailed
from tests.cluster.processes import environment, tail
from tests.kind.plan import KindPlan

DOCKER = Path("/usr/bin/docker")
"""Debian's own client, as its daemon is: another on the path may be newer."""

_SECONDS = 600  # for any one command; the slowest, the first `create` on a machine, takes one minute
_TAIL_LINES = 30


def kind(plan: KindPlan, *arguments: str) -> str:
    """What `kind ARGUMENTS` printed for the cluster of `plan`; what it tells on the way goes to kind.log.

    Raises `CommandFailed` with the end of that.
    """
    log = plan.logs / "kind.log"
    with log.open("ab") as told:
        command = [str(plan.programs / "kind"), *arguments, "--name", plan.name]
        done = subprocess.run(
            command, env=environ(plan), stdout=subprocess.PIPE, stderr=told, timeout=_SECONDS, check=False
        )
    if done.returncode != 0:
        raise CommandFailed(f"kind {' '.join(arguments[:2])}: status {done.returncode}\n{tail(log, _TAIL_LINES)}")
    return done.stdout.decode()


def docker(plan: KindPlan, *arguments: str) -> str:
    """What `docker ARGUMENTS` printed. Raises `CommandFailed`."""
    client = str(DOCKER) if plan.own else "docker"
    done = subprocess.run(
        [client, *arguments], env=environ(plan), capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    if done.returncode != 0:
        raise CommandFailed(f"docker {' '.join(arguments)}: status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def environ(plan: KindPlan) -> dict[str, str]:
    """What leads kind and docker to the Docker of `plan`, and to no other."""
    kept = environment(os.environ) | {"KIND_EXPERIMENTAL_PROVIDER": "docker"}
    if not plan.own:
        return kept
    found = {"DOCKER_HOST": f"unix://{plan.docker_socket}", "DOCKER_CONFIG": str(plan.directory / "docker-config")}
    kept.pop("DOCKER_CONTEXT", None)  # it would go before DOCKER_HOST
    return kept | found | {"PATH": f"{plan.directory / 'bin'}:{kept['PATH']}"}
