"""What kind is told of one cluster: `kind.yaml` of this folder, and what the way to a node asks for. Pure."""

from typing import Any

import yaml

from tests.kind.plan import API_PORT, KindPlan

Plain = dict[str, Any]
_CGROUP_V1 = "kind: KubeletConfiguration\nfailCgroupV1: false\n"  # such machines are what an own Docker is for, too
_CONTAINERD = "/var/lib/containerd"


def of(plan: KindPlan, written: str) -> Plain:
    """The configuration of `plan`, over the one that is `written` in the tree."""
    made: Plain = yaml.safe_load(written)
    made["nodes"] = [{**node, "extraMounts": _mounts(plan)} for node in made["nodes"]]
    return _own(made) if plan.own else made


def _own(made: Plain) -> Plain:
    """The node image of our own brings its network plugins and their settings with it, and is for one node."""
    networking = {**made.get("networking", {}), "disableDefaultCNI": True, "apiServerPort": API_PORT}
    return {
        **made,
        "networking": networking,
        "kubeadmConfigPatches": [*made.get("kubeadmConfigPatches", []), _CGROUP_V1],
    }


def _mounts(plan: KindPlan) -> list[Plain]:
    asked = [{"hostPath": here, "containerPath": there} for there, here in plan.mounts.items()]
    if plan.store is None:
        return asked
    stores = [path for path in (str(plan.store), plan.below) if path]
    shared = [{"hostPath": path, "containerPath": path, "readOnly": True} for path in stores]  # links lead there
    return [*asked, *shared, {"hostPath": str(plan.containerd_data), "containerPath": _CONTAINERD}]
