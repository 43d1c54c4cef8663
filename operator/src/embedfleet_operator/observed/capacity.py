"""Whether the cluster has room for one more pod: GPUs that nodes have, less those that pods ask for."""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from embedfleet_operator import quantity
from embedfleet_operator.observed import plain
from embedfleet_operator.observed.plain import Plain

_OVER = ("Succeeded", "Failed")  # phases of pods that hold no device any more


@dataclass(frozen=True, slots=True)
class Capacity:
    """What is known of free devices; a namespaced operator may not look at nodes and knows nothing."""

    free_pods: int | None = None
    """How many more pods of the service's shape find their GPUs; None when it cannot be told."""
    ever_fits: bool | None = None
    """Whether some node has as many GPUs as one pod asks for, taken or not; None when it cannot be told."""


def capacity(nodes: Iterable[Plain], pods: Iterable[Plain], resource: str, count: int) -> Capacity:
    """The room for pods that ask `count` of `resource`, over the nodes that take pods at all.

    Only devices are counted: they are what is scarce. Selectors, taints and memory are the scheduler's to judge.
    """
    if count == 0:
        return Capacity()
    whole = {plain.text(node, "metadata", "name"): _allocatable(node, resource) for node in nodes if _takes_pods(node)}
    free = dict(whole)
    for pod in pods:
        name = plain.text(pod, "spec", "nodeName")
        if name in free and plain.text(pod, "status", "phase") not in _OVER:
            free[name] -= _asked(pod, resource)
    room = sum(max(0, int(amount // count)) for amount in free.values())
    return Capacity(room, any(amount >= count for amount in whole.values()))


def _takes_pods(node: Plain) -> bool:
    if plain.flag(node, "spec", "unschedulable"):
        return False
    found = {plain.text(one, "type"): plain.text(one, "status") for one in plain.entries(node, "status", "conditions")}
    return found.get("Ready") == "True"


def _allocatable(node: Plain, resource: str) -> Fraction:
    return _amount(plain.at(node, "status", "allocatable", resource))


def _asked(pod: Plain, resource: str) -> Fraction:
    """What its containers ask together, or one of its init containers alone, whichever is more."""
    each = [_requested(one, resource) for one in plain.entries(pod, "spec", "containers")]
    inits = [_requested(one, resource) for one in plain.entries(pod, "spec", "initContainers")]
    return max([sum(each, Fraction(0)), *inits])


def _requested(container: Plain, resource: str) -> Fraction:
    resources = plain.mapping(container, "resources")
    return _amount(plain.at(resources, "requests", resource) or plain.at(resources, "limits", resource))


def _amount(given: object) -> Fraction:
    try:
        return quantity.value(given) if isinstance(given, str | int) else Fraction(0)
    except ValueError:
        return Fraction(0)
