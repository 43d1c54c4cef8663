"""What a machine must have for each size of cluster, and how it gets what Debian has packages for."""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.build import say_to_stderr
from tests.cluster.errors import MachineLacks

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "containerd": ("containerd", "ctr"),
    "runc": ("runc",),
    "containernetworking-plugins": ("host-local", "portmap"),  # its `bridge` is iproute2's name for a program too
    "iptables": ("iptables",),
    "iproute2": ("ip",),
    "util-linux": ("unshare",),
    "mount": ("mount",),
}
"""Debian's packages for whole nodes, and the programs that are used of each."""

PLUGINS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
"""Where network plugins lie: Debian's folder, then that of everyone else."""

ADMIN_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
"""Folders of programs that are on the path of root, though not always."""


_ROOT = "root: nodes make namespaces, mounts and control groups (a control plane alone, NODES=0, does not)"


@dataclass(frozen=True, slots=True)
class Machine:
    """The facts that decide whether whole nodes can run here."""

    root: bool
    missing: tuple[str, ...]
    namespaces: bool
    overlay: bool
    cgroups: bool


def look() -> Machine:
    """This machine's facts. Namespaces are tried, since what forbids them (seccomp, capabilities) has many names."""
    return Machine(
        root=os.geteuid() == 0,
        missing=tuple(missing_packages(lambda program: find(program) is not None)),
        namespaces=_can_unshare(),
        overlay="\toverlay\n" in Path("/proc/filesystems").read_text(encoding="utf-8"),
        cgroups=os.access("/sys/fs/cgroup", os.W_OK),
    )


def find(program: str) -> Path | None:
    """Where `program` lies: on the path, in the folders of an administrator, or among the network plugins."""
    folders = ":".join([os.environ.get("PATH", ""), ADMIN_PATH, *map(str, PLUGINS)])
    found = shutil.which(program, path=folders)
    return Path(found) if found else None


def missing_packages(present: Callable[[str], bool]) -> list[str]:
    """The packages of which a program is not `present`."""
    return [package for package, programs in PACKAGES.items() if not all(map(present, programs))]


def lacks(machine: Machine) -> tuple[list[str], list[str]]:
    """What whole nodes need and `machine` has not: what a set-up could cure, and what it could not."""
    curable = [] if machine.root else [_ROOT]
    if machine.missing:
        curable.append("the packages " + " ".join(machine.missing))
    kernel = {
        "namespaces: `unshare --net --mount --pid` is refused here, to root too": machine.namespaces,
        "overlayfs in the kernel": machine.overlay,
        "a writable /sys/fs/cgroup": machine.cgroups,
    }
    hardware = [what for what, there in kernel.items() if not there] if machine.root else []
    return curable, hardware


def provide(say: Callable[[str], None] = say_to_stderr) -> None:
    """Make this machine fit for whole nodes, by Debian's packages where those are missing and may be installed.

    Raises `MachineLacks`, which names everything that is still missing.
    """
    machine = look()
    if machine.root and machine.missing and shutil.which("apt-get"):
        say(f"installing {' '.join(machine.missing)}")
        subprocess.run(["sh", str(ROOT / "tools" / "debian_packages.sh"), *machine.missing], check=False)
        machine = look()
    curable, hardware = lacks(machine)
    if curable or hardware:
        raise MachineLacks(curable + hardware, curable=not hardware)


def _can_unshare() -> bool:
    unshare = find("unshare")
    if unshare is None:  # that is told as a missing package
        return True
    tried = [str(unshare), "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--mount-proc", "true"]
    return subprocess.run(tried, capture_output=True, check=False).returncode == 0
