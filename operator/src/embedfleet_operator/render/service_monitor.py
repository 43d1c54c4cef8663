"""The ServiceMonitor: the Prometheus operator scrapes the observation port."""

from embedfleet.api import EmbeddingService
from embedfleet_operator import names
from embedfleet_operator.render.metadata import Object, child


def render(service: EmbeddingService) -> list[Object]:
    """The ServiceMonitor, where it is asked for."""
    wanted = service.spec.monitoring.service_monitor
    if not wanted.enabled:
        return []
    spec = {
        "selector": {"matchLabels": names.selector(service.metadata.name)},
        "endpoints": [{"port": names.OBSERVE, "path": "/metrics", "interval": f"{wanted.interval_seconds}s"}],
    }
    made = child(service, "monitoring.coreos.com/v1", "ServiceMonitor", service.metadata.name, spec=spec)
    made["metadata"]["labels"] = {**(wanted.labels or {}), **made["metadata"]["labels"]}
    return [made]
