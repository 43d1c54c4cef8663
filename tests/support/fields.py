"""Every field of the manifest's spec, from the contract's own schema, each with two values that an API server takes.

What the schema alone tells (whole numbers, answers, choices) is made from it; any other field must have its values
below. A field without them is an error, so that a new one cannot be forgotten.
"""

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from embedfleet.api.crd import custom_resource_definition
from tests.support.operators import manifest_of

Plain = dict[str, Any]
_HUB = {"huggingFace": {"repo": "org/m"}}
_HOST = {"network": {"ingress": {"host": "e.example.com"}}}
_WATCHED = {"monitoring": {"serviceMonitor": {"enabled": True}}}
_TWO = {"models": [{"name": name, "source": {"path": "/models/m"}} for name in ("m", "n")]}
_FROM_HUB = {"models": [{"name": "m", "source": _HUB}]}
_GRAPH = {
    "name": "index",
    "steps": [{"name": "dense", "embed": {"model": "m"}, "from": ["input"]}],
    "outputs": ["dense"],
}

VALUES: dict[str, tuple[Any, Any]] = {
    ".models[].name": ("n", "o"),
    ".models[].source.huggingFace.repo": ("org/m", "org/n"),
    ".models[].source.huggingFace.revision": ("a" * 40, "b" * 40),
    ".models[].source.volume.claimName": ("weights", "others"),
    ".models[].source.volume.path": ("m", "n"),
    ".models[].source.image.reference": ("registry.example/m:1", "registry.example/m:2"),
    ".models[].source.image.path": ("m", "n"),
    ".models[].source.path": ("/models/n", "/models/o"),
    ".models[].prompts.query": ("a", "b"),
    ".models[].prompts.document": ("a", "b"),
    ".defaultModel": ("m", "n"),
    ".batching.itemTimeoutSeconds": (29, 28),  # no longer than a request may take while the server drains
    ".gpu.resourceName": ("amd.com/gpu", "example.com/tpu"),
    ".rollout.strategy": ("DrainFirst", "Surge"),
    ".weights.cache.persistentVolumeClaim": ("weights", "others"),
    ".weights.cache.sizeLimit": ("20Gi", "30Gi"),
    ".weights.tokenSecretRef.name": ("hub", "other"),
    ".weights.tokenSecretRef.key": ("a", "b"),
    ".weights.endpoint": ("https://hub.internal:8443", "https://other.internal"),
    ".auth.apiKeysSecretRef.name": ("keys", "others"),
    ".tls.secretRef.name": ("tls", "other"),
    ".network.allowedNamespaces": (["*"], ["team-b", "team-c"]),
    ".network.apiServerCIDRs": (["10.0.0.1/32"], ["10.0.0.2/32", "fd00::/64"]),
    ".network.ingress.host": ("e.example.com", "f.example.com"),
    ".network.ingress.className": ("nginx", "other"),
    ".network.ingress.tlsSecretRef.name": ("tls", "other"),
    ".network.ingress.annotations": ({"a": "1"}, {"b": "2"}),
    ".network.ingress.controllerNamespace": ("ingress", "other"),
    ".monitoring.serviceMonitor.labels": ({"a": "1"}, {"b": "2"}),
    ".monitoring.allowedNamespaces": (["watching"], ["other"]),
    ".tracing.endpoint": ("http://collector.tracing:4318", "https://other.example:4319/otlp"),
    ".tracing.samplingRatePerMillion": (0, 500_000),
    ".pipelines": ([_GRAPH], [{**_GRAPH, "parallelExecutions": 5}]),  # a graph goes to the servers as it is, whole
    ".image": ("registry.example/server:2", "registry.example/server:3"),
    ".imagePullSecrets[].name": ("pull", "other"),
    ".podTemplate.metadata.labels": ({"a": "1"}, {"b": "2"}),
    ".podTemplate.metadata.annotations": ({"a": "1"}, {"b": "2"}),
    ".podTemplate.spec.terminationGracePeriodSeconds": (100, 200),
    ".podTemplate.spec.nodeSelector": ({"disk": "ssd"}, {"zone": "a"}),
    ".podTemplate.spec.tolerations": ([{"key": "gpu", "operator": "Exists"}], [{"operator": "Exists"}]),
    ".podTemplate.spec.containers": (
        [{"name": "server", "resources": {"limits": {"cpu": "3"}}}],
        [{"name": "server", "env": [{"name": "A", "value": "b"}]}, {"name": "side", "image": "side:1"}],
    ),
}
"""Values of what is no whole number, answer or choice, and of what another field bounds."""

BESIDE: dict[str, Plain] = {
    ".models[].source.huggingFace.revision": _FROM_HUB,
    ".models[].source.volume.path": {"models": [{"name": "m", "source": {"volume": {"claimName": "weights"}}}]},
    ".models[].source.image.path": {"models": [{"name": "m", "source": {"image": {"reference": "r/m:1"}}}]},
    ".defaultModel": _TWO,
    ".suspend": {"replicas": 1},
    ".weights.cache.persistentVolumeClaim": _FROM_HUB,
    ".weights.cache.sizeLimit": _FROM_HUB,
    ".weights.tokenSecretRef.name": _FROM_HUB,
    ".weights.tokenSecretRef.key": {**_FROM_HUB, "weights": {"tokenSecretRef": {"name": "hub"}}},
    ".weights.endpoint": _FROM_HUB,
    ".gpu.resourceName": {"gpu": {"count": 1}},
    ".monitoring.serviceMonitor.labels": _WATCHED,
    ".monitoring.serviceMonitor.intervalSeconds": _WATCHED,
    ".network.ingress.className": _HOST,
    ".network.ingress.tlsSecretRef.name": _HOST,
    ".network.ingress.annotations": _HOST,
    ".network.ingress.controllerNamespace": _HOST,
}
"""What must be in a spec for a field to have a meaning."""

FREE = [path for path in VALUES if path.startswith(".podTemplate.spec.")]
"""Parts of the pod template that the schema leaves open, for the three ways in which Kubernetes merges."""


@dataclass(frozen=True, slots=True)
class Case:
    """A field that is set, changed, and unset again: the specs before (and after), and at the two steps."""

    path: str
    before: Plain
    steps: tuple[Plain, Plain]


def cases() -> list[Case]:
    """One for each field of the schema, and for `FREE`. Raises `LookupError` for a field that has no values here."""
    found = dict(_leaves("", _schema()))
    return [_case(path, found.get(path, {})) for path in dict.fromkeys([*found, *FREE])]


def _schema() -> Plain:
    (version,) = custom_resource_definition()["spec"]["versions"]
    spec: Plain = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return spec


def _leaves(path: str, node: Plain) -> Iterator[tuple[str, Plain]]:
    inner = node.get("items", {}) if node["type"] == "array" else node
    if "properties" not in inner or path in VALUES:
        yield path, node
        return
    for name, child in inner["properties"].items():
        yield from _leaves(f"{path}{'[]' if node['type'] == 'array' else ''}.{name}", child)


def _case(path: str, node: Plain) -> Case:
    base = manifest_of("x", replicas=0)["spec"] | BESIDE.get(path, {})
    first, second = _values(path, node)
    before = _without(base, path) if path in (".replicas", ".gpu.count") else base
    return Case(path, before, (_with(base, path, first), _with(base, path, second)))


def _values(path: str, node: Plain) -> tuple[Any, Any]:
    if path in VALUES:
        return VALUES[path]
    default = node.get("default")
    if "enum" in node:
        first, second = [one for one in node["enum"] if one != default][:2] if len(node["enum"]) > 2 else node["enum"]
        return (second, first) if first == default else (first, second)
    if node["type"] == "boolean":
        return (not default, bool(default))
    if node["type"] == "integer":
        middle = 64 if default is None else default
        most = node["maximum"]
        return (middle + 1, middle + 2) if middle + 2 <= most else (middle - 1, middle - 2)
    raise LookupError(f"tests/support/fields.py has no values for spec{path}, a {node['type']}")


def _with(spec: Plain, path: str, value: Any) -> Plain:
    """`spec` with `value` at the path; of a model's sources the one that it is in."""
    made = copy.deepcopy(spec)
    here, steps = made, path.removeprefix(".").split(".")
    for step, following in itertools.pairwise(steps):
        name = step.removesuffix("[]")
        if name == "source":
            here[name] = {key: one for key, one in here[name].items() if key == following}
        found = here.setdefault(name, [{}] if step.endswith("[]") else {})
        here = found[0] if step.endswith("[]") else found
    here[steps[-1]] = value
    return made


def _without(spec: Plain, path: str) -> Plain:
    made = copy.deepcopy(spec)
    *groups, last = path.removeprefix(".").split(".")
    here = made
    for group in groups:
        here = here[group]
    del here[last]
    return made
