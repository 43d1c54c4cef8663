"""Removing what a cluster keeps outside its processes, and showing that nothing else is left of it."""

import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.cluster import groups
from tests.cluster.errors import LeftBehind
from tests.cluster.machine import find
from tests.cluster.plan import group_name


@dataclass(frozen=True, slots=True)
class Host:
    """What any program may have added to this host."""

    interfaces: frozenset[str]
    mounts: frozenset[str]
    rules: frozenset[str]


def look() -> Host:
    """This host now. Packet rules can be read by root alone, and are none to others."""
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    return Host(frozenset(name for _, name in socket.if_nameindex()), frozenset(mounts), frozenset(_rules()))


def clean(directory: Path) -> None:
    """Remove the control groups and files of a cluster whose processes have ended."""
    groups.remove(directory)
    if directory.exists():
        shutil.rmtree(directory)


def left_of(directory: Path, before: Host) -> list[str]:
    """What is there of the cluster that was in `directory`, and what the host has that it had not `before`."""
    now = look()
    found = [f"interface {name}" for name in now.interfaces - before.interfaces]
    found += [f"mount {mount}" for mount in now.mounts - before.mounts]
    found += [f"packet rule {rule}" for rule in now.rules - before.rules]
    found += [f"control group {group}" for group in groups.of(directory)]
    found += [f"process {process}" for process in processes_of(directory)]
    return sorted([*found, f"directory {directory}"] if directory.exists() else found)


def assert_nothing_left(directory: Path, before: Host) -> None:
    """Raises `LeftBehind` with everything that is left of the cluster that was in `directory`."""
    left = left_of(directory, before)
    if left:
        raise LeftBehind(f"of the cluster in {directory}: " + "; ".join(left))


def processes_of(directory: Path) -> list[str]:
    """The processes that name `directory` in their command, or run in its control group."""
    return [
        f"{process.pid} {' '.join(process.info['cmdline'] or [])[:120]}"
        for process in psutil.process_iter(["cmdline"])
        if process.pid != psutil.Process().pid and _belongs(process, directory)
    ]


def _belongs(process: psutil.Process, directory: Path) -> bool:
    named = any(str(directory) in word for word in process.info["cmdline"] or [])
    try:
        grouped = group_name(directory) in Path(f"/proc/{process.pid}/cgroup").read_text(encoding="utf-8")
    except OSError:  # it has ended meanwhile
        return False
    return named or grouped


def _rules() -> list[str]:
    save = find("iptables-save")
    if save is None:
        return []
    told = subprocess.run([str(save)], capture_output=True, text=True, check=False).stdout.splitlines()
    return [line for line in told if line.startswith("-")]
