"""The ServiceAccount: an identity with no rights, and no token of it in the pods."""

from embedfleet.api import EmbeddingService
from embedfleet_operator.render.metadata import Object, child


def render(service: EmbeddingService) -> Object:
    """The ServiceAccount."""
    return child(service, "v1", "ServiceAccount", service.metadata.name, automountServiceAccountToken=False)
