"""`python -m tests.cluster`: a real Kubernetes cluster to try things on; `make cluster` and `make cluster-down`."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.cluster import down, machine, operator
from tests.cluster.build import binaries, say_to_stderr
from tests.cluster.cluster import Cluster
from tests.cluster.commands import kubectl
from tests.cluster.errors import ClusterError, MachineLacks
from tests.cluster.plan import Plan


def main(arguments: Sequence[str]) -> int:
    """Do what is asked; 1 with a line on standard error when it cannot be done."""
    asked = _parser().parse_args(arguments)
    do: Callable[[argparse.Namespace], int] = asked.do
    try:
        return do(asked)
    except (ClusterError, ValueError) as failure:
        say_to_stderr(str(failure))
        return 1


def _up(asked: argparse.Namespace) -> int:
    directory = asked.directory.resolve()
    if down.keeper_of(directory):
        say_to_stderr(f"a cluster is up in {directory} already")
    else:
        operator.stop(directory)
        down.stop(directory)  # what one that was killed left there
        Cluster(asked.nodes, asked.hollow, directory=directory, tied=False, say=say_to_stderr).start()
    if asked.operator:
        _operate(directory, asked.operator)
    kubeconfig, programs = directory / "kubeconfig", binaries()
    print(f"kubeconfig: {kubeconfig}\nkubectl:    {programs / 'kubectl'}")
    print(f"export KUBECONFIG={kubeconfig} PATH={programs}:$PATH")
    return 0


def _operate(directory: Path, image: str) -> None:
    running = operator.process_of(directory)
    if running:
        say_to_stderr(f"the operator runs already (process {running.pid})")
        return
    log = operator.start(directory, image, dict(os.environ))
    say_to_stderr(f"the operator is at work; its log: {log}")


def _down(asked: argparse.Namespace) -> int:
    began, directory = time.monotonic(), asked.directory.resolve()
    if not directory.exists():
        say_to_stderr(f"no cluster in {directory}")
        return 0
    operator.stop(directory)
    down.stop(directory)
    say_to_stderr(f"down in {time.monotonic() - began:.1f} s")
    return 0


def _status(asked: argparse.Namespace) -> int:
    directory = asked.directory.resolve()
    if not down.keeper_of(directory):
        print(f"no cluster runs in {directory}")
        return 1
    plan = Plan.load(directory)
    print(f"kubeconfig: {plan.admin}", kubectl(plan, "get", "nodes"), sep="\n", end="")
    return 0


def _prepare(_: argparse.Namespace) -> int:
    """Whatever the tests need, as far as this machine can have it: what it cannot is theirs to say."""
    for provide in (machine.provide, lambda: binaries("kwok")):
        try:
            provide()
        except MachineLacks as lack:
            say_to_stderr(f"tests with a real Kubernetes will be skipped: {lack}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    commands = parser.add_subparsers(required=True)
    prepare = commands.add_parser("prepare", help="build and install what the tests need, as far as that goes here")
    prepare.set_defaults(do=_prepare)
    for name, do, about in (
        ("up", _up, "start a cluster that runs until `down`, and say how to reach it"),
        ("down", _down, "end it and remove all of it"),
        ("status", _status, "its nodes; exit status 1 when none runs"),
    ):
        command = commands.add_parser(name, help=about)
        command.add_argument("directory", type=Path, metavar="DIR", help="its folder, which `up` makes")
        command.set_defaults(do=do)
        if name == "up":
            command.add_argument("--nodes", type=int, default=0, metavar="N", help="whole nodes, 0 to 3 (root)")
            command.add_argument("--hollow", type=int, default=0, metavar="N", help="nodes that kwok pretends")
            command.add_argument("--operator", metavar="IMAGE", help="start the operator too; the server's image")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
