"""The two ConfigMaps: one that never changes and is named by its content, one that changes under running pods."""

from embedfleet.api import EmbeddingService
from embedfleet.api.settings import BATCHING_FILE, MODELS_FILE, to_json
from embedfleet_operator import names
from embedfleet_operator.render import settings
from embedfleet_operator.render.metadata import Object, child


def models_name(service: EmbeddingService) -> str:
    """The name of the models' ConfigMap, which the pod template names too: other models, other pods."""
    return names.models_config(service.metadata.name, _models(service))


def models(service: EmbeddingService) -> Object:
    """What only a restart changes."""
    data = {MODELS_FILE: _models(service)}
    return child(service, "v1", "ConfigMap", models_name(service), data=data, immutable=True)


def batching(service: EmbeddingService) -> Object:
    """What running pods take up."""
    data = {BATCHING_FILE: to_json(settings.in_pod(service)[1])}
    return child(service, "v1", "ConfigMap", names.batching_config(service.metadata.name), data=data)


def _models(service: EmbeddingService) -> str:
    return to_json(settings.in_pod(service)[0])
