"""Nodes that kwok pretends: they become Ready, and so do the pods that are bound to them; nothing runs."""

from typing import Any

from tests.cluster.addresses import CONTROL_PLANE, HOLLOW_PODS
from tests.cluster.plan import Plan
from tests.cluster.processes import Processes

_ANNOTATION = "kwok.x-k8s.io/node"
_SIZE = {"cpu": "64", "memory": "512Gi", "pods": "250", "nvidia.com/gpu": "8"}
_TAINT = {"key": "type", "value": "hollow", "effect": "NoSchedule"}


def start_hollow(plan: Plan, processes: Processes) -> None:
    """kwok, which plays the kubelet of every node that is annotated as hollow."""
    processes.start(
        "kwok",
        plan.programs / "kwok",
        f"--kubeconfig={plan.kubeconfig('kwok')}",
        f"--manage-nodes-with-annotation-selector={_ANNOTATION}=fake",
        f"--node-ip={CONTROL_PLANE}",
        f"--cidr={HOLLOW_PODS}",
        "--node-lease-duration-seconds=40",
    )


def nodes(count: int, *, tainted: bool) -> dict[str, Any]:
    """`count` hollow nodes of 8 GPUs, 64 cores and 512 GiB each, to be created; all with the label `type: hollow`.

    `tainted` keeps pods away that do not tolerate `type=hollow:NoSchedule`: those that are meant to run.
    """
    items = [_node(index, tainted=tainted) for index in range(1, count + 1)]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def _node(index: int, *, tainted: bool) -> dict[str, Any]:
    name = f"hollow{index}"
    labels = {"type": "hollow", "kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": {_ANNOTATION: "fake"}},
        "spec": {"taints": [_TAINT] if tainted else []},
        "status": {"allocatable": _SIZE, "capacity": _SIZE},
    }
