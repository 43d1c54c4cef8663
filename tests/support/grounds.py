"""The cluster that end to end tests run on, whichever it is: a kubeconfig, and a way to give its nodes an image.

EMBEDFLEET_E2E_KUBECONFIG   a cluster whose nodes have the images of this tree (`python -m tools.images`)
EMBEDFLEET_E2E_LOAD         a command that gives such a cluster one more image; the archive's path is put behind it
"""

import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.build import binaries
from tests.cluster.cluster import Cluster
from tests.cluster.errors import CommandFailed
from tests.support.clusters import require
from tests.support.images import Images, running_with
from tools.images.building import Built
from tools.images.layout import Layer

KUBECONFIG, LOAD = "EMBEDFLEET_E2E_KUBECONFIG", "EMBEDFLEET_E2E_LOAD"
OWN_NODES = 2
Plain = dict[str, Any]


@dataclass(frozen=True)
class Ground:
    """A cluster by its kubeconfig.

    Args:
        kubeconfig: of an administrator.
        images: what its nodes have.
        load: gives every node the image in an archive as `docker save` writes it; None: there is no way to.
        own: the component cluster, where it is one.
    """

    kubeconfig: Path
    images: Images
    memory: Path
    load: Callable[[Path], None] | None = None
    own: Cluster | None = None

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """What `kubectl ARGUMENTS` printed. Raises `CommandFailed`."""
        return self.piped(*arguments, stdin=None if stdin is None else stdin.encode()).decode()

    def piped(self, *arguments: str, stdin: bytes | None = None) -> bytes:
        """The same in bytes."""
        done = subprocess.run(self.command(*arguments), input=stdin, capture_output=True, check=False)
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip()
            raise CommandFailed(f"kubectl {' '.join(arguments)}: status {done.returncode}: {said}")
        return done.stdout

    def command(self, *arguments: str) -> list[str]:
        """The command line of `kubectl ARGUMENTS`."""
        whom = (f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self.memory / 'kubectl'}")
        return [str(binaries() / "kubectl"), *whom, *arguments]

    def create(self, *objects: Mapping[str, Any]) -> None:
        """Make these objects, or bring them to this form."""
        whole = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "--validate=strict", "-f", "-", stdin=json.dumps(whole))

    def nodes(self) -> list[Plain]:
        """Those on which pods may run."""
        found: list[Plain] = json.loads(self.kubectl("get", "nodes", "-o", "json"))["items"]
        return [node for node in found if not node["spec"].get("taints")]

    def another_tag(self, built: Built, tag: str) -> str:
        """One of `images` once more under another name, on every node; skips the test where there is no way to."""
        if self.load is None:
            pytest.skip(f"{LOAD} must name a command that gives the cluster of {KUBECONFIG} an image")
        name = f"{built.name.rpartition(':')[0]}:{tag}"
        try:
            self._load(built, name, [built.image.last])
        except (CommandFailed, subprocess.CalledProcessError):  # a containerd that keeps no layer it has unpacked
            self._load(built, name, None)
        return name

    def _load(self, built: Built, name: str, layers: list[Layer] | None) -> None:
        assert self.load is not None
        archive = built.image.write(self.memory / "image.tar", name, layers)
        self.load(archive)
        archive.unlink()


@contextmanager
def ground(images: Images) -> Iterator[Ground]:
    """The cluster that the environment names, else one of this machine's own with two nodes."""
    require()
    with tempfile.TemporaryDirectory() as folder:
        given = os.environ.get(KUBECONFIG)
        if given:
            yield Ground(Path(given), images, Path(folder), _loader(os.environ.get(LOAD)))
            return
        with running_with(images, OWN_NODES) as made:
            yield Ground(made.kubeconfig, images, Path(folder), made.load_image, made)


def _loader(command: str | None) -> Callable[[Path], None] | None:
    if not command:
        return None
    words = shlex.split(command)
    return lambda archive: _run([*words, str(archive)])


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True)
