"""Whole nodes live in namespaces of their own: network, mounts, processes, host name, IPC.

The first process in there is the parent of all; when it is killed the kernel ends every other one, and takes mounts,
bridges and packet rules with them. So nothing can be left on the host but files and control groups.
"""

import contextlib
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests.cluster.addresses import CONTROL_PLANE, node_address, pods_of
from tests.cluster.errors import StartFailed

UNSHARE = ("unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child=SIGKILL", "--mount-proc")

_BRIDGE, _NOWHERE = "nodes0", "nowhere0"
_BRIDGE_HARDWARE = "02:4d:00:00:00:01"  # else it changes as nodes come and go, and their neighbours look at the old one
_OVERLAID = ("var", "etc", "opt")
"""Where programs write to fixed places: what they write lands among the node's files."""


def end(unshare: subprocess.Popen[bytes]) -> None:
    """Kill what `unshare` runs, and return once the kernel has ended all of it."""
    with contextlib.suppress(psutil.NoSuchProcess):  # it has ended by itself
        for first in psutil.Process(unshare.pid).children():
            first.kill()
    unshare.wait()


def cover(folder: Path) -> None:
    """In new namespaces: a /run of its own, and /var, /etc and /opt whose changes go to `folder`."""
    run("mount", "--make-rshared", "/")  # as the kubelet wants it; from the host it is cut off already
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for below in ("netns", "lock"):
        (Path("/run") / below).mkdir()
    for name in _OVERLAID:
        upper, work = folder / "changes" / name, folder / "changes" / f"{name}.work"
        upper.mkdir(parents=True)
        work.mkdir()
        options = f"lowerdir=/{name},upperdir={upper},workdir={work}"
        run("mount", "-t", "overlay", "-o", options, "overlay", f"/{name}")


def make_network() -> None:
    """The bridge between the nodes, with the first node's address."""
    _begin()
    run("ip", "link", "add", _BRIDGE, "address", _BRIDGE_HARDWARE, "type", "bridge")
    run("ip", "link", "set", _BRIDGE, "up")
    run("ip", "address", "add", f"{CONTROL_PLANE}/24", "dev", _BRIDGE)


def connect(index: int, pid: int) -> None:
    """From the bridge to `eth0` in the network of `pid`, which is node `index`; its pods are reached through it."""
    cable = f"cable{index}"
    run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
    run("ip", "link", "set", cable, "master", _BRIDGE, "up")
    run("ip", "route", "add", pods_of(index), "via", node_address(index))


def join_network(index: int, nodes: int) -> None:
    """On node `index` of so many, once it has its `eth0`."""
    _begin()
    socket.sethostname(f"node{index}")
    run("ip", "link", "set", "eth0", "up")
    run("ip", "address", "add", f"{node_address(index)}/24", "dev", "eth0")
    for other in range(1, nodes + 1):
        if other != index:
            run("ip", "route", "add", pods_of(other), "via", node_address(other))


def has_link(name: str) -> bool:
    """Whether this network has an interface `name`; /sys would tell of the host's."""
    return name in {found for _, found in socket.if_nameindex()}


def run(*command: str) -> None:
    """Raises `StartFailed` with what `command` said when it failed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StartFailed(f"{' '.join(command)}: {done.stderr.strip()}")


def _begin() -> None:
    """What the network of each node has.

    A default route must be there: a packet to a Service's address needs one before the rules turn it elsewhere. It
    leads to a cable whose other end hangs loose, for there is nothing outside: whoever goes there is told so after 3 s.
    On the bridge that end would ask for the address of everything outside in the name of node 1, and the other nodes
    would take its hardware address for node 1's. What they sent there passed the packet rules of node 1 twice, as a
    frame on the bridge and as a packet: the second time the answer of a Service came from nowhere, and was dropped.
    """
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", _NOWHERE, "type", "veth", "peer", "name", f"{_NOWHERE}p")
    for link in (f"{_NOWHERE}p", _NOWHERE):
        run("ip", "link", "set", link, "up")
    run("ip", "route", "add", "default", "dev", _NOWHERE)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def namespaced(command: Sequence[str | Path]) -> list[str | Path]:
    """`command` as the first process of new namespaces."""
    return [*UNSHARE, *command]
