"""What a service's objects look like: pure functions from the manifest to Kubernetes objects as plain mappings."""

from typing import Any

from embedfleet.api import EmbeddingService, split
from embedfleet.api.settings import BATCHING_FILE, MODELS_FILE, to_json
from embedfleet_operator import names

Object = dict[str, Any]


def objects(service: EmbeddingService) -> list[Object]:
    """Every object of `service`, in the order in which they are to be applied."""
    models, batching = split(service)
    name = service.metadata.name
    content = to_json(models)
    return [
        _config_map(service, names.models_config(name, content), MODELS_FILE, content) | {"immutable": True},
        _config_map(service, names.batching_config(name), BATCHING_FILE, to_json(batching)),
    ]


def _config_map(service: EmbeddingService, name: str, file: str, content: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(service, name), "data": {file: content}}


def _metadata(service: EmbeddingService, name: str) -> Object:
    made: Object = {"name": name, "labels": names.labels(service.metadata.name)}
    if service.metadata.namespace is not None:
        made["namespace"] = service.metadata.namespace
    if service.metadata.uid is not None:
        made["ownerReferences"] = [_owner(service, service.metadata.uid)]
    return made


def _owner(service: EmbeddingService, uid: str) -> Object:
    """The reference by which Kubernetes collects the object once the service is gone."""
    return {
        "apiVersion": service.api_version,
        "kind": service.kind,
        "name": service.metadata.name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
