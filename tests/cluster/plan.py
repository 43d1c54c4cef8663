"""What a cluster is to be, and where its files lie: handed by its starter to the processes that run it."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

MOST_NODES = 3
"""Whole nodes of one cluster; more were never tried. For numbers there are hollow ones."""

_LONGEST_SOCKET = 107  # bytes; a unix socket's address holds no more
_COVERED = ("/etc", "/opt", "/proc", "/run", "/sys", "/var")  # whole nodes have their own


@dataclass(frozen=True, slots=True)
class Plan:
    """One cluster.

    Args:
        directory: its own; made by the starter, removed at the end.
        programs: where the built programs lie.
        nodes: whole nodes, 0 for the control plane alone.
        hollow: nodes that kwok pretends, with their pods.
        tied: ends with its starter; else it runs until `down`.
        store: images that the nodes have from the start (`store.make`).
    """

    directory: Path
    programs: Path
    nodes: int = 0
    hollow: int = 0
    tied: bool = True
    store: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.nodes <= MOST_NODES:
            raise ValueError(f"nodes is {self.nodes}; it must be 0 to {MOST_NODES} (hollow ones may be many)")
        if self.hollow < 0:
            raise ValueError(f"hollow is {self.hollow}; it must be 0 or more")
        if self.nodes:
            self._check_place()

    def _check_place(self) -> None:
        covered = [top for top in _COVERED if self.directory.is_relative_to(top)]
        if covered:
            raise ValueError(f"the directory {self.directory} lies under {covered[0]}, which whole nodes cover")
        if len(str(self.socket(1)).encode()) > _LONGEST_SOCKET:
            raise ValueError(f"the directory {self.directory} is too long for unix sockets in it")

    @property
    def keys(self) -> Path:
        """Certificates and keys."""
        return self.directory / "keys"

    @property
    def logs(self) -> Path:
        """What each program writes."""
        return self.directory / "log"

    @property
    def audit_log(self) -> Path:
        """Who asked the API server for what: one JSON object a line."""
        return self.logs / "audit.jsonl"

    @property
    def admin(self) -> Path:
        """The kubeconfig of an administrator, for the host."""
        return self.directory / "kubeconfig"

    @property
    def keeper(self) -> Path:
        """The process id of the one that keeps the cluster."""
        return self.directory / "keeper.pid"

    @property
    def group(self) -> str:
        """The name of its control group, one below the root."""
        return group_name(self.directory)

    def node(self, index: int) -> Path:
        """The files of node `index`."""
        return self.directory / f"node{index}"

    def socket(self, index: int) -> Path:
        """Where node `index`'s containerd listens."""
        return self.node(index) / "containerd.sock"

    def kubeconfig(self, user: str) -> Path:
        """The kubeconfig of one of the cluster's own programs."""
        return self.keys / f"{user}.kubeconfig"

    def save(self) -> None:
        """Write it down for the other processes."""
        (self.directory / "plan.json").write_text(json.dumps(asdict(self), default=str), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> Self:
        """The plan that was saved in `directory`."""
        told = json.loads((directory / "plan.json").read_text(encoding="utf-8"))
        paths = {name: Path(told[name]) for name in ("directory", "programs", "store") if told[name] is not None}
        return cls(**(told | paths))


def group_name(directory: Path) -> str:
    """The control group of the cluster in `directory`: short, and of no other."""
    return "embedfleet-test-" + hashlib.sha256(str(directory).encode()).hexdigest()[:10]
