"""What rendering must know of the cluster and of the operator's own installation, beside the spec."""

from dataclasses import dataclass, field

INGRESS = "networking.k8s.io/v1/Ingress"
SERVICE_MONITOR = "monitoring.coreos.com/v1/ServiceMonitor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where the objects are to live."""

    server_image: str | None = None
    """The chart's value, for specs that name no image."""
    operator_namespace: str | None = None
    """Where the operator's pods are; None when it runs outside the cluster."""
    apis: frozenset[str] = field(default_factory=frozenset)
    """Optional types that the API server knows, as `group/version/Kind`."""
    api_server_cidrs: tuple[str, ...] = ()
    """Addresses of the API server, from the endpoints of the `kubernetes` Service."""
