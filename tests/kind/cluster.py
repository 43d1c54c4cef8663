"""A kind cluster for tests, with all that other clusters of `tests/cluster` can do but the audit log.

    with KindCluster(images) as cluster:
        cluster.load_images(images)
        cluster.kubectl("get", "nodes")

Where a Docker runs, kind uses it, with the node image that it publishes. Where none does, root on Debian gets one of
its own, with a node image that is made here and kept in the user's cache, and with a network of its own: only the API
server is reached from outside, at the address in `kubeconfig`.
"""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Self

from tests.cluster import machine
from tests.cluster.build import binaries
from tests.cluster.cluster import Cluster, Say
from tests.cluster.errors import MachineLacks
from tests.kind import node_image
from tests.kind.plan import KindPlan
from tests.kind.programs import kind
from tests.support.images import Images, store_of
from tools.images import base, daemon, engine
from tools.images.errors import CannotBuild


class KindCluster(Cluster):
    """A cluster of one node; as a context manager it runs inside, and nothing is left of it afterwards.

    Args:
        images: those that `load_images` is to load, so that a node of our own has their lower layers from the start.
        mounts: folders of this machine that the node sees: the path there, and the path here.
        directory: where its files are to lie; must not exist yet. A new temporary one by default.
        tied: it ends with this process; else it runs until `python -m tests.kind down`.
        say: is told of what is up, with the seconds since the start.
    """

    def __init__(
        self,
        images: Images | None = None,
        mounts: Mapping[str, Path] | None = None,
        *,
        directory: Path | None = None,
        tied: bool = True,
        say: Say = lambda _: None,
    ) -> None:
        super().__init__(nodes=1, directory=directory, tied=tied, say=say)
        self._images = images
        there = {path: str(here.resolve()) for path, here in (mounts or {}).items()}
        self._plan: KindPlan = KindPlan(self.directory, Path(), nodes=1, tied=tied, mounts=there)

    def start(self) -> Self:
        """Create it; what is missing of programs, packages and images is built or installed first.

        Raises `MachineLacks`, `BuildFailed`, `StartFailed`, and `FileExistsError` for the directory.
        """
        own = provide()
        self._plan = plan = self._planned(binaries("kind"), own=own)
        plan.directory.mkdir(mode=0o700, parents=True)
        for folder in (plan.logs, plan.keys):
            folder.mkdir()
        plan.save()
        self._keeper = _keeper(plan)
        self._follow(self._keeper)
        return self

    def _planned(self, programs: Path, *, own: bool) -> KindPlan:
        plan = replace(self._plan, programs=programs)
        if not own:
            return plan
        image = node_image.provide(programs, self._say)
        below = store_of(self._images) if self._images else None
        store = image.store(below, self._say)
        return replace(plan, image=str(image.folder), store=store, below=str(below or ""))

    @property
    def node(self) -> str:
        """What Kubernetes calls its node."""
        return self._plan.container

    def wait_for_names(self) -> None:
        """Return once pods can look names up, some 10 s after they can run. Raises `CommandFailed`."""
        self.kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s")

    def load_image(self, archive: Path) -> None:
        """Give the image in `archive`, as `docker save` writes it, to the node. Raises `CommandFailed`."""
        kind(self._plan, "load", "image-archive", str(archive))

    def load_images(self, images: Images) -> None:
        """Give `images` to the node: whole, or without the lower layers that a node of our own began with."""
        began_with = self._plan.own and images == self._images
        for built in images.all():
            target = self.directory / f"{built.recipe.name}.tar"
            self.load_image(built.write_last_layer(target) if began_with else built.write(target))
            target.unlink()


def provide() -> bool:
    """Make this machine fit for kind, and say whether a Docker of our own is needed for it.

    Raises `MachineLacks`, which names what is missing.
    """
    if is_docker(engine.running()):
        return False
    machine.provide()
    try:
        daemon.provide()
        base.release()
    except CannotBuild as lack:
        raise MachineLacks([f"Docker: {lack}"], curable=lack.curable) from lack
    return True


def is_docker(found: engine.Engine | None) -> bool:
    """Whether what runs here is a Docker; kind's support of Podman is an experiment."""
    return found is not None and found.command == ("docker",)


def _keeper(plan: KindPlan) -> subprocess.Popen[str]:
    """Its standard input is the lifeline: the kernel closes it when this process ends, whatever it ends by."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.kind.keeper", str(plan.directory)],
        cwd=machine.ROOT,
        stdin=subprocess.PIPE if plan.tied else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is the starter's to handle
    )
