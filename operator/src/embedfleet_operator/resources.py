"""The types of objects that the operator deals in, and where the API server has them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resource:
    """A type of object."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As objects have it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, sub: str | None = None) -> str:
        """Where the API server has all of them, those of a namespace, one, or a part of one."""
        root = f"/apis/{self.group}" if self.group else "/api"
        where = ("namespaces", namespace) if namespace else ()
        return "/".join([root, self.version, *where, self.plural, *(part for part in (name, sub) if part)])


SERVICES = Resource("embedfleet.dev", "v1alpha1", "EmbeddingService", "embeddingservices")
DEPLOYMENTS = Resource("apps", "v1", "Deployment", "deployments")
REPLICA_SETS = Resource("apps", "v1", "ReplicaSet", "replicasets")
PODS = Resource("", "v1", "Pod", "pods")
EVENTS = Resource("events.k8s.io", "v1", "Event", "events")
SECRETS = Resource("", "v1", "Secret", "secrets")
CLAIMS = Resource("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
NODES = Resource("", "v1", "Node", "nodes", namespaced=False)
LEASES = Resource("coordination.k8s.io", "v1", "Lease", "leases")
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")

CHILDREN = (
    Resource("", "v1", "ServiceAccount", "serviceaccounts"),
    Resource("", "v1", "ConfigMap", "configmaps"),
    Resource("", "v1", "Service", "services"),
    Resource("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    Resource("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
    DEPLOYMENTS,
)
"""What each service has; every cluster knows these types."""
OPTIONAL = (
    Resource("networking.k8s.io", "v1", "Ingress", "ingresses"),
    Resource("monitoring.coreos.com", "v1", "ServiceMonitor", "servicemonitors"),
)
"""What a service may ask for, of types that a cluster may lack."""

CHILD_OF = {resource.kind: resource for resource in (*CHILDREN, *OPTIONAL)}
"""The type of a rendered object, by its kind."""
