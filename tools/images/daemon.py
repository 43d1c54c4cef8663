"""A Docker of our own, for as long as a build takes: for root on a Debian where none runs, as in a container or in CI.

It lives in a namespace of mounts and one of processes, with its files in a folder of its own. It makes no network: the
steps of a build use the machine's. When its first process is killed the kernel ends all of it.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tools.images.base import import_base
from tools.images.engine import Engine
from tools.images.errors import BuildFailed, CannotBuild
from tools.images.recipes import ROOT

PACKAGES = ("docker.io", "debootstrap", "util-linux", "mount")
"""Debian's packages that it takes."""

_CLIENT = "/usr/bin/docker"  # Debian's own: another on the path may be newer, and lack the plugin that it builds with
_NEEDED = (Path(_CLIENT), Path("/usr/sbin/dockerd"), Path("/usr/sbin/debootstrap"))
_GROUPS = Path("/sys/fs/cgroup")
_START_SECONDS, _END_SECONDS, _LOOK_SECONDS = 120, 30, 0.1
_PROGRAM = (
    "mount -t tmpfs -o mode=755 tmpfs /run && exec dockerd --data-root={folder}/data --exec-root=/run/docker"
    " --pidfile=/run/docker.pid -H unix://{folder}/docker.sock --cgroup-parent=/{group}"
    " --bridge=none --iptables=false --ip6tables=false --storage-driver=overlay2 --log-level=warn"
)
NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc")


@contextmanager
def daemon(folder: Path, bases: Path) -> Iterator[Engine]:
    """A running one with its files in `folder`, which goes with it; its base is kept among `bases`.

    Raises `CannotBuild` where that is not possible, and `BuildFailed`.
    """
    provide()
    folder.mkdir(parents=True)
    group = f"embedfleet-images-{os.getpid()}"
    program = _PROGRAM.format(folder=folder, group=group)
    try:
        with (folder / "dockerd.log").open("wb") as log:
            process = subprocess.Popen(
                [*NAMESPACES, "sh", "-c", program], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            _await(folder, process)
            engine = Engine((_CLIENT, "-H", f"unix://{folder}/docker.sock"), options=("--network=host",))
            yield import_base(engine, bases)
        finally:
            end(process)
    finally:
        _remove_groups(_GROUPS, group)
        shutil.rmtree(folder, ignore_errors=False)


def provide() -> None:
    """Install what is missing of Debian's packages. Raises `CannotBuild` where that is not possible."""
    if os.geteuid() != 0:
        raise CannotBuild("neither Docker nor Podman runs; only root can start one for the build")
    if all(path.exists() for path in _NEEDED):
        return
    if not shutil.which("apt-get"):
        raise CannotBuild("neither Docker nor Podman runs, and this is no Debian, where one could be installed")
    print(f"installing {' '.join(PACKAGES)}", file=sys.stderr)
    subprocess.run(["sh", str(ROOT / "tools" / "debian_packages.sh"), *PACKAGES], check=False)
    if missing := [str(path) for path in _NEEDED if not path.exists()]:
        raise CannotBuild(f"the packages {' '.join(PACKAGES)} did not bring {' '.join(missing)}")


def _await(folder: Path, process: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + _START_SECONDS
    asks: Sequence[str] = (_CLIENT, "-H", f"unix://{folder}/docker.sock", "version")
    while subprocess.run(asks, capture_output=True, check=False).returncode != 0:
        if process.poll() is not None or time.monotonic() > limit:
            log = (folder / "dockerd.log").read_text(encoding="utf-8", errors="replace")
            raise BuildFailed(f"dockerd did not start:\n{log[-2000:]}")
        time.sleep(_LOOK_SECONDS)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill the first process in the namespaces, not the one outside, which then returns when all has ended."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended by itself
        for child in children.read_text(encoding="ascii").split():
            os.kill(int(child), signal.SIGKILL)
    process.wait(_END_SECONDS)


def _remove_groups(root: Path, name: str) -> None:
    """The control groups of its containers, in every hierarchy; they are empty, or empty in a moment."""
    limit = time.monotonic() + _END_SECONDS
    for top in [*root.glob(name), *root.glob(f"*/{name}")]:
        while top.exists() and not _removed(top) and time.monotonic() < limit:
            time.sleep(_LOOK_SECONDS)


def _removed(top: Path) -> bool:
    for folder, _, _ in os.walk(top, topdown=False):
        try:
            Path(folder).rmdir()
        except OSError:
            return False
    return True
