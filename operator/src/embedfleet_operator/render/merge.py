"""Strategic merge of a pod template, as Kubernetes defines it for its own types.

Mappings are merged field by field and null takes a field away. A list is replaced, unless its type has a merge key:
then entries of one key are merged, in the order they had, and new ones follow. `$patch: delete` takes an entry away,
`$patch: replace` puts one in its place. An entry of `volumes` or `env` keeps only the fields it is given: a volume is
of one kind and a variable has one value (what `kubectl apply` asks for by `$retainKeys`).
"""

from collections.abc import Iterable, Mapping
from typing import Any

from embedfleet_operator.errors import PodTemplateInvalid

Plain = Mapping[str, Any]

# Field names with a `patchMergeKey` in k8s.io/api/core/v1 (types.go), of those that a pod template can hold.
MERGE_KEYS = {
    "containers": "name",
    "env": "name",
    "ephemeralContainers": "name",
    "hostAliases": "ip",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "ports": "containerPort",
    "resourceClaims": "name",
    "schedulingGates": "name",
    "topologySpreadConstraints": "topologyKey",
    "volumeDevices": "devicePath",
    "volumeMounts": "mountPath",
    "volumes": "name",
}
_OF_ONE_KIND = ("env", "resourceClaims", "valueFrom", "volumes")
_DIRECTIVE = "$patch"
_DIRECTIVES = ("delete", "merge", "replace")


def merge(base: Plain, patch: Plain) -> dict[str, Any]:
    """`base` with `patch` put over it; neither is changed. `PodTemplateInvalid` names what has the wrong shape."""
    return _mapping(base, patch, "podTemplate")


def _mapping(base: Plain, patch: Plain, where: str) -> dict[str, Any]:
    directive = _directive(patch, where)
    given = {key: value for key, value in patch.items() if key != _DIRECTIVE}
    if directive != "merge":
        return _clean(given, where)
    made = {key: value for key, value in base.items() if given.get(key, ...) is not None}
    for key, value in given.items():
        if value is not None:
            made[key] = _value(key, made.get(key), value, f"{where}.{key}")
    return made


def _value(key: str, base: Any, patch: Any, where: str) -> Any:
    _check_shape(key, base, patch, where)
    if isinstance(patch, Mapping):
        kept = _retained(base, patch) if key in _OF_ONE_KIND else base
        return _mapping(kept or {}, patch, where)
    if isinstance(patch, list) and key in MERGE_KEYS:
        return _list(key, base or [], patch, where)
    return patch


def _check_shape(key: str, base: Any, patch: Any, where: str) -> None:
    """Lists stay lists and mappings mappings: anything else could only be refused later, in worse words."""
    for kind, word in ((list, "a list"), (Mapping, "a mapping")):
        wanted = isinstance(base, kind) or (kind is list and key in MERGE_KEYS)
        if wanted and not isinstance(patch, kind):
            raise PodTemplateInvalid(f"{where} is {patch!r}: must be {word}")


def _list(key: str, base: list[Any], patch: list[Any], where: str) -> list[Any]:
    name = MERGE_KEYS[key]
    _check_entries(name, patch, where)
    made = {_identity(name, entry): entry for entry in base}
    for entry in patch:
        identity, at = _identity(name, entry), f"{where}[{entry[name]}]"
        if _directive(entry, at) == "delete":
            made.pop(identity, None)
        elif identity in made:
            found = made[identity]
            made[identity] = _mapping(_retained(found, entry) if key in _OF_ONE_KIND else found, entry, at)
        else:
            made[identity] = _clean(entry, at)
    return list(made.values())


def _identity(name: str, entry: Plain) -> tuple[Any, Any]:
    """What tells an entry apart: its merge key, and for a port the protocol too (53 of TCP and 53 of UDP)."""
    return entry[name], entry.get("protocol", "TCP") if name == "containerPort" else None


def _check_entries(name: str, patch: Iterable[Any], where: str) -> None:
    seen: set[tuple[Any, Any]] = set()
    for place, entry in enumerate(patch):
        at = f"{where}[{place}]"
        if not isinstance(entry, Mapping):
            raise PodTemplateInvalid(f"{at} is {entry!r}: must be a mapping with {name}")
        key = entry.get(name)
        if not isinstance(key, str | int) or key == "":
            raise PodTemplateInvalid(f"{at} has no {name}, which tells entries apart")
        if _identity(name, entry) in seen:
            raise PodTemplateInvalid(f"{at}: {name} {key!r} stands more than once")
        seen.add(_identity(name, entry))


def _retained(base: Plain, patch: Plain) -> Plain:
    """What stays of an entry that is to have only the fields it is given."""
    return {key: value for key, value in (base or {}).items() if key in patch}


def _clean(patch: Plain, where: str) -> dict[str, Any]:
    """`patch` merged with nothing: without its nulls and directives."""
    return _mapping({}, {key: value for key, value in patch.items() if key != _DIRECTIVE}, where)


def _directive(patch: Plain, where: str) -> str:
    directive = patch.get(_DIRECTIVE, "merge")
    if directive not in _DIRECTIVES:
        raise PodTemplateInvalid(f"{where}.{_DIRECTIVE} is {directive!r}: must be one of {', '.join(_DIRECTIVES)}")
    return str(directive)
