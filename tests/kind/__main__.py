"""`python -m tests.kind`: the product on kind; `make e2e-kind`."""

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.cluster import down
from tests.cluster.build import binaries, say_to_stderr
from tests.cluster.errors import ClusterError
from tests.cluster.machine import ROOT
from tests.kind.cluster import KindCluster
from tests.kind.creating import delete
from tests.kind.plan import KindPlan
from tests.kind.programs import kind
from tests.support.images import Images
from tools.images.building import build
from tools.images.errors import ImagesError
from tools.images.recipes import operator, server

PLACE = Path(".kind")
KUBECONFIG, LOAD = "EMBEDFLEET_E2E_KUBECONFIG", "EMBEDFLEET_E2E_LOAD"
"""What the suite of tests/e2e reads: a cluster that is there, and a command that gives it one more image."""

SHORT, WHOLE, ON_OTHERS = "tests/e2e/kind", "tests/e2e", "tests/e2e/images"


def main(arguments: Sequence[str]) -> int:
    """Do what is asked; 1 with a line on standard error when it cannot be done."""
    asked = _parser().parse_args(arguments)
    do: Callable[[argparse.Namespace], int] = asked.do
    try:
        return do(asked)
    except (ClusterError, ImagesError, ValueError) as failure:
        say_to_stderr(str(failure))
        return 1


def _up(asked: argparse.Namespace) -> int:
    directory = asked.directory.resolve()
    if down.keeper_of(directory):
        say_to_stderr(f"a cluster is up in {directory} already")
        return 0
    _stop(directory)  # what one that was killed left there
    images = _images()
    mounts = {str(folder.resolve()): folder for folder in asked.mount}
    cluster = KindCluster(images, mounts, directory=directory, tied=False, say=say_to_stderr).start()
    cluster.load_images(images)
    cluster.wait_for_names()
    print(f"kubeconfig: {cluster.kubeconfig}\nkubectl:    {cluster.programs / 'kubectl'}")
    print("images:     " + "\n            ".join(built.name for built in images.all()))
    print(f"export KUBECONFIG={cluster.kubeconfig}")
    return 0


def _down(asked: argparse.Namespace) -> int:
    began, directory = time.monotonic(), asked.directory.resolve()
    if not directory.exists():
        say_to_stderr(f"no cluster in {directory}")
        return 0
    _stop(directory)
    say_to_stderr(f"down in {time.monotonic() - began:.1f} s")
    return 0


def _stop(directory: Path) -> None:
    """End it; where its keeper was killed, a Docker that runs anyway has the node still."""
    if (directory / "plan.json").exists() and not down.keeper_of(directory):
        plan = KindPlan.load(directory)
        if not plan.own:
            delete(plan)
    down.stop(directory)


def _load(asked: argparse.Namespace) -> int:
    kind(KindPlan.load(asked.directory.resolve()), "load", "image-archive", str(asked.archive.resolve()))
    return 0


def _test(asked: argparse.Namespace) -> int:
    """The exit status of pytest."""
    if not asked.whole:
        return _pytest([SHORT, *asked.more], {})
    images = _images()
    with KindCluster(images, say=say_to_stderr) as cluster:
        cluster.load_images(images)
        cluster.wait_for_names()
        load = shlex.join([sys.executable, "-m", "tests.kind", "load", str(cluster.directory)])
        ignored = [f"--ignore={folder}" for folder in (SHORT, ON_OTHERS)]  # these bring clusters of their own
        return _pytest([WHOLE, *ignored, *asked.more], {KUBECONFIG: str(cluster.kubeconfig), LOAD: load})


def _pytest(arguments: Sequence[str], environ: dict[str, str]) -> int:
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environ, check=False).returncode


def _images() -> Images:
    binaries("kind")  # first, since it says at once what is missing for it
    return Images(*build([server("cpu"), operator()]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.kind", description=__doc__)
    commands = parser.add_subparsers(required=True)
    up = commands.add_parser("up", help="create a cluster with the images of this tree, and say how to reach it")
    up.add_argument("--mount", type=Path, action="append", default=[], metavar="DIR", help="the node has DIR, too")
    for name, command, do in (
        ("up", up, _up),
        ("down", commands.add_parser("down", help="delete it and remove all of it"), _down),
        ("load", commands.add_parser("load", help="give it one more image"), _load),
    ):
        command.set_defaults(do=do)
        command.add_argument(
            "directory", type=Path, nargs=None if name == "load" else "?", default=PLACE, metavar="DIR"
        )
    commands.choices["load"].add_argument("archive", type=Path, metavar="ARCHIVE")
    test = commands.add_parser("test", help="the short form of the end to end tests, on a cluster made for it")
    test.add_argument("--whole", action="store_true", help="the whole suite instead")
    test.add_argument("more", nargs="*", metavar="OPTION", help="of pytest, behind --")
    test.set_defaults(do=_test)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
