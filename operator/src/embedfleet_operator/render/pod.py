"""The pod template: it depends on the spec and the server image alone, so that another operator changes no pod."""

from typing import Any

from embedfleet.api import EmbeddingService
from embedfleet_operator import names, quantity
from embedfleet_operator.errors import CannotRender
from embedfleet_operator.render import container, fetch, volumes
from embedfleet_operator.render.merge import merge
from embedfleet_operator.render.metadata import Object

_USER = 65532
"""Numeric user and group of the server image, as `nonroot` of distroless images; a volume's files go to the group."""
_NODE, _ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"


def template(service: EmbeddingService, server_image: str | None) -> Object:
    """The pod template of a Deployment; `CannotRender` when no pod can come of the spec."""
    _check_paths(service)
    image = service.spec.image or server_image
    if image is None:
        raise CannotRender("ImageUnset", "neither spec.image nor the operator names an image of the server")
    merged = merge(_base(service, image), _changes(service))
    made: Object = _canonical(_finished(merged, service))
    return made


def _check_paths(service: EmbeddingService) -> None:
    for model in service.spec.models:
        path = model.source.path
        if path is not None and not path.startswith("/"):
            message = f"model {model.name}: source.path is {path!r}: in a pod it must be absolute"
            raise CannotRender("PathNotAbsolute", message)


def _base(service: EmbeddingService, image: str) -> Object:
    name = service.metadata.name
    annotations = {"kubectl.kubernetes.io/default-container": names.CONTAINER}
    return {"metadata": {"labels": names.labels(name), "annotations": annotations}, "spec": _spec(service, image)}


def _spec(service: EmbeddingService, image: str) -> Object:
    name = service.metadata.name
    fetching = fetch.render(service, image)
    secrets = [{"name": secret.name} for secret in service.spec.image_pull_secrets]
    return {
        "serviceAccountName": name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": service.spec.drain.grace_seconds,
        "securityContext": _security(),
        **({"imagePullSecrets": secrets} if secrets else {}),
        **({"initContainers": fetching} if fetching else {}),
        "containers": [container.render(service, image)],
        "volumes": volumes.volumes(service),
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [_apart(name)]}},
        "topologySpreadConstraints": [_spread(name)],
    }


def _security() -> Object:
    return {
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "runAsGroup": _USER,
        "fsGroup": _USER,
        "fsGroupChangePolicy": "OnRootMismatch",  # a large store is not walked through at each start
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _spread(name: str) -> Object:
    """Evenly over the nodes where that can be."""
    return {"topologyKey": _NODE, "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway", **_rollout(name)}


def _apart(name: str) -> Object:
    """In different zones where that can be.

    No second constraint of spreading: the scheduler leaves nodes out of account that lack the label of any of them, so
    that without zones pods would not be spread over nodes either.
    """
    return {"weight": 100, "podAffinityTerm": {"topologyKey": _ZONE, **_rollout(name)}}


def _rollout(name: str) -> Object:
    """Pods of one rollout among themselves, since the old ones leave."""
    return {"labelSelector": {"matchLabels": names.selector(name)}, "matchLabelKeys": ["pod-template-hash"]}


def _changes(service: EmbeddingService) -> Object:
    given = service.spec.pod_template
    return {} if given is None else given.model_dump(by_alias=True, exclude_unset=True)


def _finished(pod: Object, service: EmbeddingService) -> Object:
    """What no template takes away: the labels that select the pods, and the way onto nodes with the GPU."""
    spec = pod["spec"]
    labels = {**(pod["metadata"].get("labels") or {}), **names.labels(service.metadata.name)}
    finished = {key: [_hardened(each) for each in spec[key]] for key in ("initContainers", "containers") if key in spec}
    tolerations = _tolerations(spec.get("tolerations") or [], service)
    finished |= {"tolerations": tolerations} if tolerations else {}
    return {"metadata": pod["metadata"] | {"labels": labels}, "spec": spec | finished}


def _hardened(each: Object) -> Object:
    """A container beside ours gets, where it says nothing itself, what a restricted namespace asks for."""
    asked = {key: container.RESTRICTED[key] for key in ("allowPrivilegeEscalation", "capabilities")}
    return each | {"securityContext": asked | (each.get("securityContext") or {})}


def _tolerations(given: list[Any], service: EmbeddingService) -> list[Any]:
    """Those given, and those of the GPU: of its resource's name, and of its vendor's usual taint (MIG slices)."""
    gpu = service.spec.gpu
    vendor = gpu.resource_name.partition("/")[0]
    keys = dict.fromkeys([gpu.resource_name, f"{vendor}/gpu"]) if gpu.count else {}
    own = [{"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in keys]
    return given + [toleration for toleration in own if toleration not in given]


def _canonical(tree: Any) -> Any:
    """Quantities written in the one way the API server writes them: an equal amount is no other pod."""
    if isinstance(tree, list):
        return [_canonical(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    return {key: _amounts(value) if key in _QUANTITIES else _canonical(value) for key, value in tree.items()}


_QUANTITIES = ("limits", "requests", "sizeLimit")


def _amounts(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: quantity.canonical(amount) for key, amount in value.items()}
    return quantity.canonical(value) if isinstance(value, str | int) else value
