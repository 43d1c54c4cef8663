"""Init container `fetch`: brings the weights of hub models into the store before the server starts.

It reads the same `models.json` as the server, so that repositories and revisions stand in one place.
"""

from embedfleet.api import EmbeddingService
from embedfleet_operator import names
from embedfleet_operator.render import paths, volumes
from embedfleet_operator.render.container import RESTRICTED
from embedfleet_operator.render.metadata import Object

FETCH_COMMAND = ["python", "-m", "embedfleet_server.fetch"]
_RESOURCES: Object = {
    "requests": {"cpu": "100m", "memory": "256Mi"},
    "limits": {"cpu": "2", "memory": "2Gi"},  # digests and decompression of several streams; the page cache may go
}


def render(service: EmbeddingService, image: str) -> list[Object]:
    """The container, where any weights come from a hub."""
    if not volumes.fetches(service):
        return []
    return [
        {
            "name": names.FETCH,
            "image": image,
            "command": FETCH_COMMAND,
            "args": ["--settings", paths.SETTINGS, "--store", paths.STORE],
            "env": _environment(service),
            "resources": _RESOURCES,
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "securityContext": RESTRICTED,
            "volumeMounts": volumes.fetch_mounts(service),
        }
    ]


def _environment(service: EmbeddingService) -> list[Object]:
    """The variables by which huggingface_hub is told where to ask and who asks."""
    weights = service.spec.weights
    made: list[Object] = [
        {"name": "HOME", "value": paths.TEMPORARY},
        {"name": "HF_HUB_DISABLE_TELEMETRY", "value": "1"},
    ]
    if weights.endpoint is not None:
        made.append({"name": "HF_ENDPOINT", "value": weights.endpoint})
    if weights.token_secret_ref is not None:
        token = {"name": weights.token_secret_ref.name, "key": weights.token_secret_ref.key}
        made.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": token}})
    return made
