"""A node of a component cluster is lost: its cable to the others is pulled, and what runs on it goes on unheard."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.cluster import Cluster
from tests.cluster.commands import run


@contextmanager
def pulled(cluster: Cluster, index: int) -> Iterator[None]:
    """Node `index`, which is not the first, is out of reach inside the block."""
    cable = ("nsenter", f"--net=/proc/{_first_process(cluster)}/ns/net", "ip", "link", "set", f"cable{index}")
    run(*cable, "down")
    try:
        yield
    finally:
        run(*cable, "up")


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
