"""Pods to touch after a batching change: an annotation that changes makes the kubelet sync their volumes at once."""

from collections.abc import Iterable
from typing import Any

from embedfleet_operator import names
from embedfleet_operator.observed import Pod


def untouched(pods: Iterable[Pod], generation: int) -> list[Pod]:
    """Those not known to run the batching values of `generation`, and not touched for it yet."""
    return [pod for pod in pods if not pod.leaving and pod.touched != str(generation) and _lags(pod, generation)]


def touch(generation: int) -> dict[str, Any]:
    """The merge patch of such a pod."""
    return {"metadata": {"annotations": {names.BATCHING: str(generation)}}}


def _lags(pod: Pod, generation: int) -> bool:
    """One that is silent as it starts has mounted the newest; silent and ready, it is out of the operator's reach."""
    return pod.is_ready if pod.server is None else pod.server.generation != generation
