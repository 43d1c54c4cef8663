"""Many services of one namespace at once, each with a misfortune of its own, and whether all end alike."""

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.operators import CHILDREN, Place, manifest_of, until

Plain = dict[str, Any]
_LABEL = "embedfleet.dev/service"
_BY_CHANCE = ("clusterIP", "clusterIPs")
_HASHED = re.compile(r"-models-[0-9a-f]{10}")  # of a content in which the service's name stands


@dataclass(frozen=True)
class Crowd:
    """Services of these names, all of one spec; the first of them meets no misfortune."""

    place: Place
    names: Sequence[str]

    def apply(self, **spec: Any) -> None:
        """All of them, with this spec; some of it is given."""
        items = [manifest_of(name, **spec) for name in self.names]
        self.place.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))

    def alike(self, seconds: float = 120) -> None:
        """Return once each is as the first one, which has settled by then; says which ones do not get there."""
        Place(self.place.cluster, self.place.namespace, self.names[0]).settled(seconds)
        try:
            until(self.is_alike, seconds, pause=1)
        except AssertionError as error:
            raise AssertionError(f"not as {self.names[0]}: {self._differing()}") from error

    def is_alike(self) -> bool:
        """Whether each is as the first one."""
        return not self._differing()

    def _differing(self) -> dict[str, str]:
        found = self.states()
        return {name: found[name] for name in self.names if found[name] != found[self.names[0]]}

    def states(self) -> dict[str, str]:
        """What there is of each: children as rendered, how many ReplicaSets and pods, conditions."""
        kinds = f"embed,{CHILDREN},replicasets,pods"
        out = self.place.kubectl("get", kinds, "-o", "json")
        found: dict[str, list[Any]] = defaultdict(list)
        for one in json.loads(out)["items"]:
            if "deletionTimestamp" not in one["metadata"]:
                found[_service(one)].append(_essence(one))
        return {name: _HASHED.sub("-models-", json.dumps(sorted(found[name]))).replace(name, "NAME") for name in found}


def _service(tree: Plain) -> str:
    labels, name = tree["metadata"].get("labels", {}), tree["metadata"]["name"]
    return str(labels.get(_LABEL, name))


def _essence(tree: Plain) -> str:
    """What does not depend on chance, as text."""
    kind = tree["kind"]
    if kind in ("ReplicaSet", "Pod"):
        return str(kind)
    if kind == "EmbeddingService":
        told = tree.get("status", {})
        conditions = [(one["type"], one["status"], one["reason"]) for one in told.get("conditions", [])]
        return json.dumps([kind, told.get("observedGeneration"), told.get("replicas"), conditions])
    spec = {key: value for key, value in tree.get("spec", {}).items() if key not in _BY_CHANCE}
    owners = len(tree["metadata"].get("ownerReferences", []))
    return json.dumps([kind, tree["metadata"]["name"], owners, spec, tree.get("data")], sort_keys=True)
