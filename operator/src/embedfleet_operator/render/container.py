"""Container `server`: the batching server of a pod."""

from collections.abc import Mapping

from embedfleet.api import EmbeddingService
from embedfleet_operator import names
from embedfleet_operator.render import paths, volumes
from embedfleet_operator.render.metadata import Object

RESTRICTED: Object = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""What the Pod Security Standard `restricted` asks of a container, and a root file system that cannot be written."""

DRAIN_COMMAND = ["python", "-m", "embedfleet_server.drain"]
_STARTUP_PERIOD, _STARTUP_FAILURES = 5, 360
"""Seconds between looks and their number: half an hour, since large weights from a slow disk take many minutes."""
_LIVE_PERIOD, _LIVE_FAILURES = 10, 6
"""A minute without an answer: a long garbage collection or a stopped machine is no reason to throw work away."""
_READY_PERIOD, _READY_FAILURES = 5, 2
_PROBE_TIMEOUT = 5
_CORES, _MEMORY_GIB = 4, 8
"""Limits per device, for pods whose template names none: tokenizing beside a device, weights of 1 B parameters."""


def render(service: EmbeddingService, image: str) -> Object:
    """The container."""
    return {
        "name": names.CONTAINER,
        "image": image,
        "command": ["python", "-m", "embedfleet_server"],
        "args": ["--settings", paths.SETTINGS, "--host", "0.0.0.0", "--store", paths.STORE],  # noqa: S104  # nosec B104  # a pod's own
        "env": [*_values(_ENVIRONMENT), _threads(), *(_who() if service.spec.tracing is not None else [])],
        "ports": [
            {"name": names.HTTP, "containerPort": names.HTTP_PORT},
            {"name": names.OBSERVE, "containerPort": names.OBSERVE_PORT},
        ],
        "resources": _resources(service),
        "startupProbe": _probe("/startup", _STARTUP_PERIOD, _STARTUP_FAILURES),
        "livenessProbe": _probe("/live", _LIVE_PERIOD, _LIVE_FAILURES),
        "readinessProbe": _probe("/ready", _READY_PERIOD, _READY_FAILURES),
        "lifecycle": {"preStop": {"exec": {"command": DRAIN_COMMAND}}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": RESTRICTED,
        "volumeMounts": volumes.server_mounts(service),
    }


_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",  # the init container has fetched; a server that asks a hub would hide that it has not
    "HOME": paths.TEMPORARY,
    "XDG_RUNTIME_DIR": paths.RUNTIME,  # of the control socket; the drain command looks there too
    "XDG_CACHE_HOME": paths.COMPILED,
    "TORCHINDUCTOR_CACHE_DIR": f"{paths.COMPILED}/inductor",
    "TRITON_CACHE_DIR": f"{paths.COMPILED}/triton",
}


_FIELDS = {"K8S_NAMESPACE": "metadata.namespace", "K8S_POD": "metadata.name", "K8S_NODE": "spec.nodeName"}
_ATTRIBUTES = ",".join(
    [
        "k8s.namespace.name=$(K8S_NAMESPACE)",
        "k8s.pod.name=$(K8S_POD)",
        "k8s.node.name=$(K8S_NODE)",
        f"k8s.container.name={names.CONTAINER}",
    ]
)
"""Of OpenTelemetry's semantic conventions for Kubernetes."""


def _values(environment: Mapping[str, str]) -> list[Object]:
    return [{"name": name, "value": value} for name, value in environment.items()]


def _who() -> list[Object]:
    """Which pod a span comes from, as OpenTelemetry's SDK reads it; what is referred to must stand before."""
    fields = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in _FIELDS.items()]
    return [*fields, *_values({"OTEL_RESOURCE_ATTRIBUTES": _ATTRIBUTES})]


def _threads() -> Object:
    """As many threads as the container may use cores: PyTorch counts the node's, and many would only wait."""
    source = {"containerName": names.CONTAINER, "resource": "limits.cpu", "divisor": "1"}
    return {"name": "OMP_NUM_THREADS", "valueFrom": {"resourceFieldRef": source}}


def _resources(service: EmbeddingService) -> Object:
    gpu = service.spec.gpu
    devices = {gpu.resource_name: str(gpu.count)} if gpu.count else {}
    each = max(1, gpu.count)
    return {
        "requests": {"cpu": str(each), "memory": f"{2 * each}Gi", **devices},
        "limits": {"cpu": str(_CORES * each), "memory": f"{_MEMORY_GIB * each}Gi", **devices},
    }


def _probe(path: str, period: int, failures: int) -> Object:
    return {
        "httpGet": {"path": path, "port": names.OBSERVE},
        "periodSeconds": period,
        "timeoutSeconds": _PROBE_TIMEOUT,
        "failureThreshold": failures,
    }
