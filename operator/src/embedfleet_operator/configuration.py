"""What a run of the operator is told: one frozen object, made in `__main__`."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Settings of one operator process."""

    identity: str
    """What tells this process apart from the other replicas, in the Lease and in events."""
    kubeconfig: Path | None = None
    """None: the pod's own account, or the kubeconfig that kubectl would take."""
    context: str | None = None
    namespaces: tuple[str, ...] = ()
    """Where services are looked after; empty: in all namespaces, and then nodes are read too."""
    server_image: str | None = None
    """Image of the server for specs that name none."""
    operator_namespace: str | None = None
    """Where the operator's pods are, which network policies let in; None outside a cluster."""
    api_server_cidrs: tuple[str, ...] = ()
    """Addresses of the API server for network policies; empty: as the Service `kubernetes` has them."""
    resync_seconds: float = 25
    """A change of which no event came is seen after so long; under the 30 s in which children are to be repaired."""
    lease_namespace: str = "default"
    lease_name: str = "embedfleet-operator"
    lease_seconds: int = 15
    """A leader that was killed is followed after so long; one that cannot renew writes for two thirds of it."""
    observe_host: str = "0.0.0.0"  # noqa: S104  # nosec B104  # a pod's own: the kubelet asks from the node
    observe_port: int | None = 8081
    """Of `/live` and `/ready`; None: no such port."""
