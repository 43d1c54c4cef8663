"""Control groups of a cluster's nodes: one in every hierarchy, made before the kubelet starts, removed last."""

import os
import time
from pathlib import Path

from tests.cluster.errors import LeftBehind
from tests.cluster.plan import Plan, group_name

ROOT = Path("/sys/fs/cgroup")
_REMOVE_SECONDS = 10  # an ended process leaves its group a moment after it is reaped
_LOOK_SECONDS = 0.05


def make(plan: Plan) -> None:
    """A group for each node: the kubelet makes those of its pods below, and wants its own to be there."""
    for hierarchy in hierarchies(ROOT):
        for path in (hierarchy / plan.group, *(hierarchy / plan.group / f"node{i}" for i in range(1, plan.nodes + 1))):
            path.mkdir(exist_ok=True)
            _hand_down(path)


def remove(directory: Path) -> None:
    """Every group of the cluster in `directory`; its processes must have been killed. Raises `LeftBehind`."""
    for top in of(directory):
        limit = time.monotonic() + _REMOVE_SECONDS
        while not _removed(top):
            if time.monotonic() > limit:
                raise LeftBehind(f"the control group {top} still holds processes")
            time.sleep(_LOOK_SECONDS)


def of(directory: Path) -> list[Path]:
    """The control groups that are there of the cluster in `directory`."""
    tops = [hierarchy / group_name(directory) for hierarchy in hierarchies(ROOT)]
    return [top for top in tops if top.exists()]


def hierarchies(root: Path) -> list[Path]:
    """The one hierarchy of version 2, or the folders of version 1's: one a controller, or a few by links."""
    if (root / "cgroup.controllers").exists():
        return [root]
    return sorted({path.resolve() for path in root.iterdir() if path.is_dir()}) if root.is_dir() else []


def _hand_down(group: Path) -> None:
    """What a new group has not of itself: its processors (version 1), or the controllers (version 2)."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (group / name).exists() and not (group / "cgroup.controllers").exists():
            (group / name).write_text((group.parent / name).read_text())
    if (group.parent / "cgroup.subtree_control").exists():
        controllers = (group.parent / "cgroup.controllers").read_text().split()
        (group.parent / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))


def _removed(top: Path) -> bool:
    for folder, _, _ in os.walk(top, topdown=False):
        try:
            Path(folder).rmdir()
        except FileNotFoundError:
            continue
        except OSError:  # busy
            return False
    return True
