"""The server's two settings as they are in a pod: sources are paths of mounts, secrets are directories."""

from embedfleet.api import BatchingSettings, EmbeddingService, ModelSettings, split
from embedfleet_operator.render import paths


def in_pod(service: EmbeddingService) -> tuple[ModelSettings, BatchingSettings]:
    """`split`, with what differs in a pod put over it."""
    spec = service.spec
    models, batching = split(service)
    changes = {
        "models": [model.model_copy(update={"source": paths.located(model.source)}) for model in models.models],
        "drain": spec.drain,
        "api_keys_directory": paths.API_KEYS if spec.auth else None,
        "tls_directory": paths.TLS if spec.tls else None,
    }
    return models.model_copy(update=changes), batching
