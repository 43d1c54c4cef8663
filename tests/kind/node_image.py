"""The node image of our own, in the user's cache: made once, and loaded into each cluster's Docker in no time.

    CACHE/node-KEY/docker/              what a Docker's data holds of the image
    CACHE/node-KEY/control-plane.tar    the layer of what kubeadm runs as pods
    CACHE/stores/KEY/                   these as the node's containerd has them, with links to our images' own store

A cluster's Docker begins with copies of the small files and links to the layer; a container writes to a folder of its
own.
"""

import hashlib
import json
import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import leftovers, store
from tests.cluster.build import SOURCE, known
from tests.cluster.errors import BuildFailed
from tests.cluster.machine import ROOT
from tests.cluster.processes import Processes
from tests.kind import control_plane_images, own_docker, programs, root_files
from tests.kind.plan import KindPlan
from tools.images import building, layout
from tools.images.base import release

NAME = "embedfleet-kind-node:local"
"""What Docker calls it."""

_LINKED, _COPIED = "overlay2", "image"
_SHORT_NAMES = "l"  # the folder of short links to layers among the layers
_KEEP_SECONDS = 14 * 24 * 3600
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class NodeImage:
    """A node image in the cache."""

    folder: Path
    programs: Path

    def begin_with(self, data: Path) -> None:
        """Let the Docker that will have its data in `data` begin with the image."""
        shutil.copytree(self.folder / "docker" / _COPIED, data / _COPIED)
        layers = data / _LINKED
        layers.mkdir()
        for kept in (self.folder / "docker" / _LINKED).iterdir():
            if kept.name == _SHORT_NAMES:
                shutil.copytree(kept, layers / kept.name, symlinks=True)
            elif kept.is_dir():
                (layers / kept.name).symlink_to(kept)

    def store(self, below: Path | None, say: Say) -> Path:
        """What the node's containerd is to begin with: the control plane's images, beside those of the store `below`.

        Unpacked where the cache has it not; root only.
        """
        names = [store.version(), self.folder.name, *(_identity(below) if below else [])]
        found = place() / "stores" / _digest(names)
        with building.locked(found.parent):
            if not found.exists():
                _forget_old(found.parent, time.time(), found)
                began = time.monotonic()
                self._unpack(below, found)
                say(f"unpacked the control plane's images for kind in {time.monotonic() - began:.0f} s")
            os.utime(found)
        return found

    def _unpack(self, below: Path | None, target: Path) -> None:
        control_plane = layout.Layer.of(self.folder / "control-plane.tar")
        names = control_plane_images.asked_for(self.programs, version())
        archives = control_plane_images.archives(control_plane, names)
        store.make(target, archives, below=below)


def place() -> Path:
    """Where all of it is kept."""
    return building.place().with_name("kind")


def version() -> str:
    """Of Kubernetes, as the programs were built."""
    recipe = known((SOURCE / "go.mod").read_text(encoding="utf-8"))["kubebox"]
    (found,) = [value.partition("=")[2] for value in recipe.values if ".gitVersion=" in value]
    return found


def provide(binaries: Path, say: Say) -> NodeImage:
    """The node image of the programs in `binaries`, made where the cache has it not; root on Debian.

    Raises `BuildFailed`, `CommandFailed` and `StartFailed`.
    """
    folder = place() / f"node-{key(release(), binaries.name)}"
    with building.locked(place()):
        if not folder.exists():
            _forget_old(place(), time.time(), folder)
            began = time.monotonic()
            say(f"making a node image for kind: {folder}")
            _make(binaries, folder)
            say(f"made it in {time.monotonic() - began:.0f} s")
        os.utime(folder)
    return NodeImage(folder, binaries)


def key(codename: str, binaries: str) -> str:
    """Changes with all that the image is made of: Debian's release, the programs, and how they are put together."""
    sources = [ROOT / "tests" / "kind" / f"{name}.py" for name in ("control_plane_images", "root_files")]
    return _digest([codename, binaries, platform.machine(), *(file.read_text(encoding="utf-8") for file in sources)])


def _make(binaries: Path, target: Path) -> None:
    draft = target.with_name(f"d{os.getpid()}")  # short: it has unix sockets in it
    shutil.rmtree(draft, ignore_errors=True)
    (draft / "log").mkdir(parents=True)
    plan = KindPlan(draft, binaries, nodes=1, image=str(target))
    plan.save()
    made = draft / "made"
    made.mkdir()
    try:
        node = _layers(binaries, draft / "root", made)
        data = made / "docker"
        data.mkdir()
        _load(plan, _image(node))
        for name in (_LINKED, _COPIED):
            (plan.docker_data / name).rename(data / name)
        node.path.unlink()
        made.rename(target)
    finally:
        leftovers.clean(draft)


def _layers(binaries: Path, root: Path, made: Path) -> layout.Layer:
    """The node's one layer; beside it that of the control plane's images."""
    names = control_plane_images.asked_for(binaries, version())
    root_files.make(root, binaries, _kind_source(), version(), control_plane_images.pause_of(names))
    control_plane_images.write_layer(root, binaries, made / "control-plane.tar")
    layer = made / "node.tar"
    done = subprocess.run(["tar", "-C", str(root), "--numeric-owner", "-cf", str(layer), "."], check=False)
    if done.returncode != 0:
        raise BuildFailed(f"tar of the node's files ended with status {done.returncode}")
    return layout.Layer.of(layer)


def _image(layer: layout.Layer) -> layout.Image:
    settings = {
        "Env": ["container=docker", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "Entrypoint": ["/usr/local/bin/entrypoint", "/sbin/init"],
        "StopSignal": "SIGRTMIN+3",  # systemd's for an end; at SIGTERM it begins anew
    }
    architecture = control_plane_images.ARCHITECTURES[platform.machine()]
    rootfs: dict[str, Any] = {"type": "layers", "diff_ids": [layer.digest]}
    return layout.Image({"architecture": architecture, "os": "linux", "config": settings, "rootfs": rootfs}, (layer,))


def _load(plan: KindPlan, image: layout.Image) -> None:
    """Give it to a Docker that is started for that; its data is whole when that has said so."""
    processes = Processes(plan.logs)
    with socket.create_server(("127.0.0.1", 0)) as nobody_calls:
        try:
            own_docker.start(plan, processes, nobody_calls)
            command = [str(programs.DOCKER), "load", "--quiet"]
            with subprocess.Popen(command, env=programs.environ(plan), stdin=subprocess.PIPE) as loading:
                assert loading.stdin is not None
                image.write_to(loading.stdin, NAME)
                loading.stdin.close()
            if loading.returncode != 0:
                raise BuildFailed(f"docker load of {NAME} ended with status {loading.returncode}")
        finally:
            own_docker.end(processes)


def _kind_source() -> Path:
    """kind's own sources, of the version that the programs are built of."""
    asked = ["go", "mod", "download", "-json", "sigs.k8s.io/kind"]
    done = subprocess.run(asked, cwd=SOURCE, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildFailed(f"{' '.join(asked)}: {done.stdout}{done.stderr}")
    return Path(json.loads(done.stdout)["Dir"])


def _forget_old(folder: Path, now: float, kept: Path) -> None:
    """What other sources made and nobody asked for lately: it takes gigabytes."""
    for path in folder.iterdir():
        if path != kept and path.name != "stores" and path.is_dir() and now - path.stat().st_mtime > _KEEP_SECONDS:
            shutil.rmtree(path)


def _identity(made: Path) -> list[str]:
    """One store: another that is made later in its place has other numbers for the same layers."""
    return [str(made), str(made.stat().st_ino)]


def _digest(told: list[str]) -> str:
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]
