"""Images that nodes have from the start, in no time: unpacked once by a containerd of its own, and shared after that.

A store is the folder of such a containerd. A node begins with a copy of its two small databases; layers and unpacked
files are links into the store, and stay as they are, for a container writes to a folder of its own.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.cluster.commands import run
from tests.cluster.errors import CommandFailed, StartFailed
from tests.cluster.machine import find
from tests.cluster.processes import environment

_CONTENT = Path("io.containerd.content.v1.content", "blobs", "sha256")
_IMAGES = Path("io.containerd.metadata.v1.bolt")
_SNAPSHOTTER = Path("io.containerd.snapshotter.v1.overlayfs")
_SNAPSHOTS = _SNAPSHOTTER / "snapshots"
_DATABASES = (_IMAGES / "meta.db", _SNAPSHOTTER / "metadata.db")
_LINKED = (_CONTENT, _SNAPSHOTS)
_START_SECONDS, _LOOK_SECONDS = 60, 0.05
_NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc")
_CONFIG = """version = 2
root = "{root}"
state = "/run/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{socket}"
"""


def version() -> str:
    """Of the containerd of this machine: another may have another form of store."""
    return run(str(find("containerd") or "containerd"), "--version").strip()


def make(
    store: Path,
    archives: Sequence[Callable[[IO[bytes]], None]],
    layers: Sequence[Path] = (),
    *,
    below: Path | None = None,
) -> None:
    """Unpack the images that `archives` write into the new folder `store`; root only.

    Of a layer that is among `layers` (files named `DIGEST.tar`) no second copy is kept, where a hard link can be made.
    With `below` it has the images of that store too, by links: the two must stay together.
    Raises `CommandFailed` and `StartFailed`.
    """
    draft = store.with_name(f"{store.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        if below:
            begin_with(below, draft)
        with _containerd(draft) as socket:
            for archive in archives:
                _import(socket, archive)
        for layer in layers:
            _share(layer, draft / _CONTENT / layer.stem)
        draft.rename(store)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _import(socket: Path, write: Callable[[IO[bytes]], None]) -> None:
    command = ["ctr", "--address", str(socket), "--namespace", "k8s.io", "images", "import", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as taking:
        assert taking.stdin is not None
        assert taking.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # then it has ended, and says why
            write(taking.stdin)
            taking.stdin.close()
        said = taking.stdout.read().decode(errors="replace")
    if taking.returncode != 0:
        raise CommandFailed(f"ctr images import: status {taking.returncode}: {said.strip()}")


def begin_with(store: Path, root: Path) -> None:
    """Let the containerd that will have its files in `root` begin with what `store` has."""
    for database in _DATABASES:
        (root / database).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(store / database, root / database)
    for folder in _LINKED:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for kept in (store / folder).iterdir():
            (root / folder / kept.name).symlink_to(kept)


def _share(layer: Path, copy: Path) -> None:
    if not copy.exists():
        return
    linked = copy.with_suffix(".linked")
    try:
        os.link(layer, linked)
    except OSError:  # another file system
        return
    linked.rename(copy)


@contextmanager
def _containerd(root: Path) -> Iterator[Path]:
    """One with its files in `root` that runs no containers; gives its socket."""
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        config, socket = Path(folder) / "config.toml", Path(folder) / "containerd.sock"
        config.write_text(_CONFIG.format(root=root, socket=socket), encoding="utf-8")
        command = f"mount -t tmpfs -o mode=755 tmpfs /run && exec containerd --config {config}"
        with (Path(folder) / "log").open("w+b") as log:
            process = subprocess.Popen(
                [*_NAMESPACES, "sh", "-c", command], env=environment(os.environ), stdout=log, stderr=log
            )
            try:
                _await(socket, process, Path(folder) / "log")
                yield socket
            finally:
                _end(process)


def _await(socket: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    limit = time.monotonic() + _START_SECONDS
    while not socket.exists():
        if process.poll() is not None or time.monotonic() > limit:
            raise StartFailed(f"containerd of the store: {log.read_text(encoding='utf-8', errors='replace')}")
        time.sleep(_LOOK_SECONDS)


def _end(process: subprocess.Popen[bytes]) -> None:
    """In order, so that its databases are whole."""
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split():
        os.kill(int(child), 15)
    process.wait()
