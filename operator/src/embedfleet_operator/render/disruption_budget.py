"""The PodDisruptionBudget: a node drain takes one pod at a time."""

from embedfleet.api import EmbeddingService
from embedfleet_operator import names
from embedfleet_operator.render.metadata import Object, child


def render(service: EmbeddingService) -> Object:
    """The budget; it never blocks a drain for good, neither by a lone replica nor by pods that are not well anyway."""
    spec = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": names.selector(service.metadata.name)},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return child(service, "policy/v1", "PodDisruptionBudget", service.metadata.name, spec=spec)
