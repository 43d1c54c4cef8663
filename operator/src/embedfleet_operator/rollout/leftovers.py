"""Children that the spec no longer asks for: what may go, and what an older pod still needs."""

from collections.abc import Iterable
from dataclasses import dataclass

from embedfleet_operator.observed import ReplicaSet


@dataclass(frozen=True, slots=True)
class Child:
    """An object of the service, by kind and name, with the uid that a deletion must name."""

    kind: str
    name: str
    uid: str


def leftovers(live: Iterable[Child], wanted: Iterable[tuple[str, str]], sets: Iterable[ReplicaSet]) -> list[Child]:
    """Those of `live` (owned by the service) to delete: not rendered (`wanted`: kind, name), mounted by no ReplicaSet.

    A models' ConfigMap stays as long as a ReplicaSet names it, so that its pods restart and a rollout can be undone.
    """
    kept = set(wanted) | {("ConfigMap", name) for one in sets for name in one.config_maps}
    return [child for child in live if (child.kind, child.name) not in kept]
