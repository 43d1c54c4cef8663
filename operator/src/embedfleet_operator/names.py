"""The names and labels of a service's objects: decided here alone, since a rename orphans what is there already."""

import hashlib

MANAGER = "embedfleet-operator"
_DIGEST_LENGTH = 10
"""Hexadecimal digits of a digest in a name: 40 bits, far above the few settings one service has over its life."""


def labels(service: str) -> dict[str, str]:
    """The labels of every object of `service`, in Kubernetes' recommended words."""
    return {
        "app.kubernetes.io/name": "embedfleet",
        "app.kubernetes.io/instance": service,
        "app.kubernetes.io/managed-by": MANAGER,
    }


def models_config(service: str, content: str) -> str:
    """The name of the immutable ConfigMap that holds `content`: other content, another name, and so a rollout."""
    digest = hashlib.sha256(content.encode()).hexdigest()[:_DIGEST_LENGTH]
    return f"{service}-models-{digest}"


def batching_config(service: str) -> str:
    """The name of the ConfigMap that changes under running pods."""
    return f"{service}-batching"
