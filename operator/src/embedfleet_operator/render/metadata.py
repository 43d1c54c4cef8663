"""Name, labels, owner and digest: what every child has."""

import json
from typing import Any

from embedfleet.api import EmbeddingService
from embedfleet_operator import names

Object = dict[str, Any]


def child(service: EmbeddingService, api_version: str, kind: str, name: str, **rest: Any) -> Object:
    """An object of `service` with its metadata; `rest` is what else stands at its top."""
    return {"apiVersion": api_version, "kind": kind, "metadata": _metadata(service, name), **rest}


def stamped(made: Object) -> Object:
    """`made` with a digest of itself as an annotation, by which a later pass sees that nothing changed."""
    metadata = made["metadata"]
    text = json.dumps(made, sort_keys=True, ensure_ascii=True)
    annotations = {**metadata.get("annotations", {}), names.RENDERED: names.digest(text)}
    return made | {"metadata": metadata | {"annotations": annotations}}


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
