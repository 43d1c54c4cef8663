"""The Ingress: a host name outside the cluster."""

from embedfleet.api import EmbeddingService
from embedfleet_operator import names
from embedfleet_operator.render.metadata import Object, child


def render(service: EmbeddingService) -> list[Object]:
    """The Ingress, where it is asked for."""
    wanted = service.spec.network.ingress
    if wanted is None:
        return []
    backend = {"service": {"name": service.metadata.name, "port": {"name": names.HTTP}}}
    path = {"path": "/", "pathType": "Prefix", "backend": backend}
    spec: Object = {"rules": [{"host": wanted.host, "http": {"paths": [path]}}]}
    if wanted.class_name is not None:
        spec["ingressClassName"] = wanted.class_name
    if wanted.tls_secret_ref is not None:
        spec["tls"] = [{"hosts": [wanted.host], "secretName": wanted.tls_secret_ref.name}]
    made = child(service, "networking.k8s.io/v1", "Ingress", service.metadata.name, spec=spec)
    if wanted.annotations:
        made["metadata"]["annotations"] = dict(wanted.annotations)
    return [made]
