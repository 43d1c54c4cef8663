"""Whether an object in the cluster is already what was rendered, so that nothing need be written.

A server-side apply of equal content is a request all the same; in a quiet cluster there are to be none.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from embedfleet_operator import quantity

_QUANTITIES = frozenset({"limits", "requests", "sizeLimit"})
_LIST_KEYS = ("name", "containerPort", "mountPath", "topologyKey", "ip", "uid")


def unchanged(rendered: Mapping[str, Any], live: Mapping[str, Any]) -> bool:
    """Whether `live` was made of the very same rendering and still holds all of it.

    The digest, an annotation of every child, sees what a rendering no longer asks for; the other fields see what
    somebody else has changed since.
    """
    return holds(rendered, live)


def holds(wanted: Any, live: Any) -> bool:
    """Whether everything in `wanted` is in `live`; what that has beside it (defaults, others' fields) is no matter."""
    if isinstance(wanted, Mapping):
        return isinstance(live, Mapping) and all(_field(key, value, live) for key, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(live, list) and _entries(wanted, live)
    return bool(wanted == live)


def _field(key: str, wanted: Any, live: Mapping[str, Any]) -> bool:
    if key in _QUANTITIES:
        return _amounts(wanted, live.get(key))
    if wanted in (None, {}, []) and key not in live:
        return True
    return key in live and holds(wanted, live[key])


def _amounts(wanted: Any, live: Any) -> bool:
    if isinstance(wanted, Mapping):
        return isinstance(live, Mapping) and all(k in live and quantity.equal(v, live[k]) for k, v in wanted.items())
    return live is not None and quantity.equal(wanted, live)


def _entries(wanted: Sequence[Any], live: Sequence[Any]) -> bool:
    """Keyed entries wherever they stand; others in place, and none beside them."""
    key = _key(wanted)
    if key is None:
        return len(wanted) == len(live) and all(holds(one, other) for one, other in zip(wanted, live, strict=True))
    found = {entry.get(key): entry for entry in live if isinstance(entry, Mapping)}
    return all(entry[key] in found and holds(entry, found[entry[key]]) for entry in wanted)


def _key(entries: Sequence[Any]) -> str | None:
    """What tells the entries apart, where something does."""
    for key in _LIST_KEYS:
        if entries and all(isinstance(entry, Mapping) and key in entry for entry in entries):
            return key
    return None
