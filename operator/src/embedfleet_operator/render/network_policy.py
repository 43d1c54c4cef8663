"""The NetworkPolicy: nobody gets in or out but those who must."""

from urllib.parse import urlsplit

from embedfleet.api import EmbeddingService
from embedfleet.api.access import ANY_NAMESPACE
from embedfleet_operator import names
from embedfleet_operator.render import volumes
from embedfleet_operator.render.metadata import Object, child
from embedfleet_operator.render.site import Site

_NAMESPACE = "kubernetes.io/metadata.name"
_POD = "app.kubernetes.io/name"
_PROMETHEUS = "prometheus"
_DNS_PORT = 53
_PORTS = {"https": 443, "http": 80}


def render(service: EmbeddingService, site: Site) -> list[Object]:
    """The policy, unless it is switched off. The kubelet's probes pass every policy."""
    if not service.spec.network.enabled:
        return []
    spec = {
        "podSelector": {"matchLabels": names.selector(service.metadata.name)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": _into(service, site),
        "egress": _out(service),
    }
    return [child(service, "networking.k8s.io/v1", "NetworkPolicy", service.metadata.name, spec=spec)]


def _into(service: EmbeddingService, site: Site) -> list[Object]:
    api_server = [{"ipBlock": {"cidr": cidr}} for cidr in _api_server(service, site)]
    requests, observation = _tcp(names.HTTP_PORT), _tcp(names.OBSERVE_PORT)
    return [
        {"from": _callers(service), "ports": [requests]},
        {"from": _observers(service, site), "ports": [observation]},
        *([{"from": api_server, "ports": [requests, observation]}] if api_server else []),
    ]


def _callers(service: EmbeddingService) -> list[Object]:
    network = service.spec.network
    given = list(network.allowed_namespaces)
    if network.ingress is not None and network.ingress.controller_namespace is not None:
        given.append(network.ingress.controller_namespace)
    return [{"podSelector": {}}, *_namespaces(given)]


def _observers(service: EmbeddingService, site: Site) -> list[Object]:
    """Prometheus by its usual label in any namespace, the operator in its own, and those named."""
    made = [{"namespaceSelector": {}, "podSelector": {"matchLabels": {_POD: _PROMETHEUS}}}]
    if site.operator_namespace is not None:
        (home,) = _namespaces([site.operator_namespace])
        made.append(home | {"podSelector": {"matchLabels": {_POD: names.MANAGER}}})
    return made + _namespaces(service.spec.monitoring.allowed_namespaces)


def _namespaces(given: list[str]) -> list[Object]:
    if ANY_NAMESPACE in given:
        return [{"namespaceSelector": {}}]
    return [{"namespaceSelector": {"matchLabels": {_NAMESPACE: name}}} for name in dict.fromkeys(given)]


def _api_server(service: EmbeddingService, site: Site) -> list[str]:
    return list(service.spec.network.api_server_cidrs) or list(site.api_server_cidrs)


def _out(service: EmbeddingService) -> list[Object]:
    dns = {"ports": [{"protocol": protocol, "port": _DNS_PORT} for protocol in ("UDP", "TCP")]}
    tracing = service.spec.tracing
    ports = [_hub_port(service)] if volumes.fetches(service) else []
    ports += [tracing.port] if tracing is not None else []
    return [dns, *({"ports": [_tcp(port)]} for port in dict.fromkeys(ports))]


def _hub_port(service: EmbeddingService) -> int:
    parts = urlsplit(service.spec.weights.endpoint or "https://")
    return parts.port or _PORTS[parts.scheme]


def _tcp(port: int) -> Object:
    return {"protocol": "TCP", "port": port}
