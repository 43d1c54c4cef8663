"""A node of a component cluster is lost, as its cable to the others is pulled, or is cut off from the API server alone.

What runs on it goes on: unheard by all, or by the control plane only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.addresses import node_address, pods_of
from tests.cluster.cluster import Cluster
from tests.cluster.commands import run

_API_PORT = "6443"


@contextmanager
def pulled(cluster: Cluster, index: int) -> Iterator[None]:
    """Node `index`, which is not the first, is out of reach inside the block."""
    cable = (*_at_the_first(cluster), "ip", "link", "set", f"cable{index}")
    run(*cable, "down")
    try:
        yield
    finally:
        run(*cable, "up")


@contextmanager
def partitioned(cluster: Cluster, index: int) -> Iterator[None]:
    """No packet from node `index`, which is not the first, or from its pods reaches the API server inside the block.

    Whatever else goes between the nodes arrives, so that its pods are reached as before.
    """
    rules = [
        ("INPUT", "-s", source, "-p", "tcp", "--dport", _API_PORT, "-j", "DROP")
        for source in (node_address(index), pods_of(index))
    ]
    tables = (*_at_the_first(cluster), "iptables", "-w")
    for rule in rules:
        run(*tables, "-I", *rule)
    try:
        yield
    finally:
        for rule in rules:
            run(*tables, "-D", *rule)


def _at_the_first(cluster: Cluster) -> tuple[str, ...]:
    """What a command begins with that is to run in the network of the first node."""
    return ("nsenter", f"--net=/proc/{_first_process(cluster)}/ns/net")


def _first_process(cluster: Cluster) -> int:
    """That of the first node's namespaces, where the bridge is."""
    wanted = [b"tests.cluster.inside", str(cluster.directory).encode(), b"--listen"]
    for folder in Path("/proc").iterdir():
        words = _words(folder) if folder.name.isdigit() else []
        if words[:1] != [b"unshare"] and words[-4:-1] == wanted:
            return int(folder.name)
    raise AssertionError(f"no process keeps the first node of {cluster.directory}")


def _words(folder: Path) -> list[bytes]:
    try:
        return (folder / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:  # it has ended meanwhile
        return []
