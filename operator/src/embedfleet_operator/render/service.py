"""The Service: one address for all pods."""

from embedfleet.api import EmbeddingService
from embedfleet_operator import names
from embedfleet_operator.render.metadata import Object, child


def render(service: EmbeddingService) -> Object:
    """The Service; the observation port is there for Prometheus and closed to others by the network policy."""
    scheme = "https" if service.spec.tls else "http"
    spec = {
        "type": "ClusterIP",
        "selector": names.selector(service.metadata.name),
        "ports": [_port(names.HTTP, names.HTTP_PORT, scheme), _port(names.OBSERVE, names.OBSERVE_PORT, "http")],
    }
    return child(service, "v1", "Service", service.metadata.name, spec=spec)


def _port(name: str, number: int, protocol: str) -> Object:
    return {"name": name, "port": number, "targetPort": name, "protocol": "TCP", "appProtocol": protocol}
