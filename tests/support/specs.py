"""Random valid specs of an `EmbeddingService`, as an API server would take them."""

from typing import Any

from hypothesis import strategies as st

from embedfleet.api import EmbeddingService

Plain = dict[str, Any]

NAMES = st.from_regex(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)
OBJECTS = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
COMMITS = st.from_regex(r"[0-9a-f]{40}", fullmatch=True)
PATHS = st.sampled_from(["m", "models/m", "a-b/c.d"])
CPUS = st.sampled_from(["500m", "1", 2, "2000m"])
MEMORY = st.sampled_from(["512Mi", "1Gi", "2048Mi"])


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Plain]:
    """Mappings that have any of these fields."""
    return st.fixed_dictionaries({}, optional=fields)


def references() -> st.SearchStrategy[Plain]:
    """References to Secrets."""
    return st.fixed_dictionaries({"name": OBJECTS})


def sources() -> st.SearchStrategy[Plain]:
    """Sources of every kind."""
    hub = st.fixed_dictionaries(
        {"repo": st.sampled_from(["org/m", "org/n"])}, optional={"revision": st.just("main") | COMMITS}
    )
    volume = st.fixed_dictionaries({"claimName": OBJECTS}, optional={"path": PATHS})
    image = st.fixed_dictionaries({"reference": st.just("registry.example/w:1")}, optional={"path": PATHS})
    kinds = {"huggingFace": hub, "volume": volume, "image": image, "path": st.just("/models/m")}
    return st.one_of([st.fixed_dictionaries({kind: made}) for kind, made in kinds.items()])


def models() -> st.SearchStrategy[list[Plain]]:
    """One to five models of different names."""
    one = st.fixed_dictionaries(
        {"name": st.sampled_from(["a", "B.c", "graph_1", "d-e", "Z9"]), "source": sources()},
        optional={"loading": st.sampled_from(["Eager", "Lazy"]), "dimensions": st.integers(1, 512)},
    )
    return st.lists(one, min_size=1, max_size=5, unique_by=lambda model: str(model["name"]))


def drains() -> st.SearchStrategy[Plain]:
    """Drains that add up."""
    lame = st.integers(0, 60).flatmap(
        lambda most: st.fixed_dictionaries(
            {
                "maxLameDuckSeconds": st.just(most),
                "propagationSeconds": st.integers(0, most),
                "quietSeconds": st.integers(0, most),
            }
        )
    )
    return st.tuples(lame, st.integers(30, 600)).map(lambda both: {**both[0], "requestSeconds": both[1]})


def pod_templates() -> st.SearchStrategy[Plain]:
    """Pod templates that change what people change."""
    resources = optional(requests=optional(cpu=CPUS, memory=MEMORY), limits=optional(cpu=CPUS, memory=MEMORY))
    server = st.fixed_dictionaries({"name": st.just("server")}, optional={"resources": resources})
    sidecar = st.just({"name": "side", "image": "side:1", "resources": {"limits": {"cpu": "100m", "memory": "64Mi"}}})
    spec = optional(
        containers=st.lists(server | sidecar, max_size=2, unique_by=lambda one: str(one["name"])),
        nodeSelector=st.just({"disk": "ssd"}),
        tolerations=st.just([{"key": "dedicated", "operator": "Exists"}]),
        priorityClassName=OBJECTS,
        volumes=st.just([{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}]),
    )
    labels = st.just({"team": "search", "app.kubernetes.io/instance": "other"})
    return optional(metadata=optional(labels=labels), spec=spec)


def networks() -> st.SearchStrategy[Plain]:
    """Networks, open and closed."""
    ingress = st.fixed_dictionaries(
        {"host": st.just("embed.example.com")},
        optional={"className": OBJECTS, "tlsSecretRef": references(), "controllerNamespace": OBJECTS},
    )
    return optional(
        enabled=st.booleans(),
        allowedNamespaces=st.lists(st.just("*") | OBJECTS, max_size=3, unique=True),
        apiServerCIDRs=st.lists(st.sampled_from(["10.0.0.1/32", "fd00::/64"]), max_size=2, unique=True),
        ingress=ingress,
    )


def specs() -> st.SearchStrategy[Plain]:
    """Whole specs."""
    claim: st.SearchStrategy[Plain] = st.fixed_dictionaries({"persistentVolumeClaim": OBJECTS})
    cache = claim | st.sampled_from([{"sizeLimit": "20Gi"}, {}])
    token = st.fixed_dictionaries({"name": OBJECTS}, optional={"key": st.just("hub")})
    resource = st.sampled_from(["nvidia.com/gpu", "nvidia.com/mig-1g.5gb", "amd.com/gpu", "example.com/tpu"])
    monitor = optional(enabled=st.booleans(), labels=st.just({"release": "prometheus"}))
    return st.fixed_dictionaries(
        {"models": models()},
        optional={
            "gpu": optional(count=st.integers(0, 4), resourceName=resource),
            "replicas": st.integers(0, 20),
            "suspend": st.booleans(),
            "drain": drains(),
            "weights": optional(cache=cache, tokenSecretRef=token, endpoint=st.just("https://hub.internal:8443")),
            "auth": st.fixed_dictionaries({"apiKeysSecretRef": references()}),
            "tls": st.fixed_dictionaries({"secretRef": references()}),
            "network": networks(),
            "monitoring": optional(
                serviceMonitor=monitor, allowedNamespaces=st.lists(OBJECTS, max_size=2, unique=True)
            ),
            "tracing": optional(
                endpoint=st.sampled_from(["http://c:4318", "https://c.example"]),
                samplingRatePerMillion=st.integers(0, 1_000_000),
            ),
            "image": st.just("registry.example/server:1"),
            "imagePullSecrets": st.lists(references(), max_size=2, unique_by=lambda one: str(one["name"])),
            "podTemplate": pod_templates(),
        },
    )


def manifests() -> st.SearchStrategy[Plain]:
    """Whole objects, as plain mappings."""
    metadata = st.fixed_dictionaries({"name": NAMES, "namespace": st.just("team-a"), "uid": st.just("u-1")})
    return st.fixed_dictionaries(
        {
            "apiVersion": st.just("embedfleet.dev/v1alpha1"),
            "kind": st.just("EmbeddingService"),
            "metadata": metadata,
            "spec": specs(),
        }
    )


def services() -> st.SearchStrategy[EmbeddingService]:
    """Whole objects."""
    return manifests().map(EmbeddingService.model_validate)
