"""Who may reach a service, and how: `auth`, `tls`, `network`, `monitoring`."""

import ipaddress
from typing import Annotated

from pydantic import Field

from embedfleet.api.base import ContractModel, Rule
from embedfleet.api.references import (
    LABEL_PATTERN,
    MetadataMap,
    NamespaceName,
    ObjectName,
    SecretReference,
    Unique,
)

ANY_NAMESPACE = "*"
_NAMESPACE_OR_ANY = rf"^\*$|{LABEL_PATTERN}"
Namespaces = Annotated[
    list[Annotated[str, Field(pattern=_NAMESPACE_OR_ANY, max_length=63)]], Field(max_length=64), Unique
]
Cidrs = Annotated[list[Annotated[str, Field(max_length=43)]], Field(max_length=64), Unique]


class Auth(ContractModel):
    """Keys that requests must bring."""

    api_keys_secret_ref: SecretReference
    """Secret whose entries are the keys: its key names the tenant, its value is what the tenant sends."""


class Tls(ContractModel):
    """Encryption of the public port."""

    secret_ref: SecretReference
    """Secret of type `kubernetes.io/tls`, with `tls.crt` and `tls.key`."""


class Ingress(ContractModel):
    """A way in from outside the cluster."""

    host: Annotated[
        str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", max_length=253)
    ]
    """Host name under which the service is reached."""
    class_name: ObjectName | None = None
    """Ingress class. Unset: the cluster's default."""
    tls_secret_ref: SecretReference | None = None
    """Certificate of the host. Unset: plain HTTP."""
    annotations: MetadataMap | None = None
    """Annotations of the Ingress, as its controller wants them."""
    controller_namespace: NamespaceName | None = None
    """Namespace of the ingress controller, let through the network policy."""


class Network(ContractModel):
    """Who may open connections to the pods, and where these may open some."""

    enabled: bool = True
    """Whether there is a NetworkPolicy: nobody else gets in, and out only to DNS and, for weights, to the hub."""
    allowed_namespaces: Namespaces = Field(default_factory=list)
    """Namespaces whose pods may send requests, beside the service's own; `*` is all of them."""
    api_server_cidrs: Cidrs = Field(default_factory=list, alias="apiServerCIDRs")
    """Addresses from which the API server's proxy comes. Unset: those of the `kubernetes` Service's endpoints."""
    ingress: Ingress | None = None
    """A way in from outside the cluster. Unset: none."""

    cel_rules = (
        Rule(
            "!has(self.apiServerCIDRs) || self.apiServerCIDRs.all(c, isCIDR(c))",
            "apiServerCIDRs must be addresses with a prefix length, such as 10.0.0.1/32",
            lambda self: all(_is_cidr(entry) for entry in self.get("apiServerCIDRs") or ()),
        ),
    )


class ServiceMonitor(ContractModel):
    """A ServiceMonitor of the Prometheus operator."""

    enabled: bool = False
    """Whether there is one; the cluster must have the Prometheus operator's types."""
    labels: MetadataMap | None = None
    """Labels by which a Prometheus chooses its ServiceMonitors."""
    interval_seconds: Annotated[int, Field(ge=1, le=3600)] = 30
    """Time from one scrape to the next."""


class Monitoring(ContractModel):
    """How the service is watched."""

    service_monitor: ServiceMonitor = Field(default_factory=ServiceMonitor)
    """A ServiceMonitor of the Prometheus operator."""
    allowed_namespaces: Namespaces = Field(default_factory=list)
    """Namespaces whose pods may read the observation port, beside Prometheus' own pods anywhere; `*` is all of them."""


def _is_cidr(text: str) -> bool:
    if "/" not in text:
        return False
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True
