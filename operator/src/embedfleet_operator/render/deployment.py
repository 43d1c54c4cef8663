"""The Deployment: how many pods, how new ones take the place of old ones, and the pod template."""

from embedfleet.api import EmbeddingService
from embedfleet_operator import names
from embedfleet_operator.observed.workload import Way
from embedfleet_operator.render import pod
from embedfleet_operator.render.metadata import Object, child

STRATEGIES: dict[Way, Object] = {
    "Surge": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
    "DrainFirst": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
}
"""A quarter more pods at a time, rounded up; or one fewer, so that the others carry on."""
_KEPT = 3
"""Old ReplicaSets kept to go back to; each holds on to a ConfigMap of models."""
_DEADLINE_SECONDS = 3600
"""Kubernetes' own word on a rollout that is stuck: past the fetching and loading of large weights."""


def replicas(service: EmbeddingService) -> int:
    """How many pods there are to be."""
    return 0 if service.spec.suspend else service.spec.replicas


def render(service: EmbeddingService, server_image: str | None, way: Way) -> Object:
    """The Deployment; `CannotRender` when no pod can come of the spec."""
    name = service.metadata.name
    spec = {
        "replicas": replicas(service),
        "revisionHistoryLimit": _KEPT,
        "progressDeadlineSeconds": _DEADLINE_SECONDS,
        "strategy": STRATEGIES[way],
        "selector": {"matchLabels": names.selector(name)},
        "template": pod.template(service, server_image),
    }
    return child(service, "apps/v1", "Deployment", name, spec=spec)
