"""The names and labels of a service's objects: decided here alone, since a rename orphans what is there already."""

import hashlib

from embedfleet.api import EmbeddingService

MANAGER = "embedfleet-operator"
"""Field manager of everything the operator applies, and name of its own pods (`app.kubernetes.io/name`)."""
CONTAINER = "server"
"""The container that `podTemplate` may change by this name."""
FETCH = "fetch"
"""The init container that brings weights."""
HTTP_PORT, OBSERVE_PORT = 8080, 8081
HTTP, OBSERVE = "http", "observe"

SERVICE_LABEL = "embedfleet.dev/service"
"""What selects a service's pods: a key of our own, since a Helm release may share the common labels' values."""
RENDERED = "embedfleet.dev/rendered"
"""Annotation of every child: the digest of what was applied."""
BATCHING = "embedfleet.dev/batching-generation"
"""Annotation of a pod, touched after a batching change so that the kubelet syncs the volume at once."""

LONGEST = 63
"""Characters of a DNS label; children keep to it though Kubernetes allows most of them more."""
_DIGEST_LENGTH = 10
"""Hexadecimal digits of a digest in a name: 40 bits, far above the few settings one service has over its life."""


def selector(service: str) -> dict[str, str]:
    """The labels that a service's pods have and nothing else has; a Deployment's selector can never change."""
    return {SERVICE_LABEL: service}


def labels(service: str) -> dict[str, str]:
    """The labels of every object of `service`, in Kubernetes' recommended words."""
    return {
        "app.kubernetes.io/name": "embedfleet",
        "app.kubernetes.io/instance": service,
        "app.kubernetes.io/managed-by": MANAGER,
        **selector(service),
    }


def models_config(service: str, content: str) -> str:
    """The name of the immutable ConfigMap that holds `content`: other content, another name, and so a rollout."""
    return child(service, f"models-{digest(content)}")


def batching_config(service: str) -> str:
    """The name of the ConfigMap that changes under running pods."""
    return child(service, "batching")


def child(service: str, suffix: str) -> str:
    """`SERVICE-SUFFIX`; a service's name too long for that is cut, and told apart by its digest."""
    whole = f"{service}-{suffix}"
    if len(whole) <= LONGEST:
        return whole
    room = LONGEST - len(suffix) - _DIGEST_LENGTH - 2  # two hyphens
    return f"{service[:room].rstrip('-')}-{digest(service)}-{suffix}"


def url(service: EmbeddingService) -> str:
    """Where clients reach the service: the Ingress' host where there is one, else the name within the cluster."""
    ingress = service.spec.network.ingress
    if ingress is not None:
        return f"{'https' if ingress.tls_secret_ref else 'http'}://{ingress.host}"
    scheme = "https" if service.spec.tls else "http"
    return f"{scheme}://{service.metadata.name}.{service.metadata.namespace or 'default'}.svc:{HTTP_PORT}"


def digest(content: str) -> str:
    """A short name for `content`, the same on every machine."""
    return hashlib.sha256(content.encode()).hexdigest()[:_DIGEST_LENGTH]
