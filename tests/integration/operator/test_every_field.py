"""Every field of the contract set, changed, unset on a real API server: the children follow, and nothing is left."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from embedfleet.api import EmbeddingService
from embedfleet_operator import names, render, resources
from embedfleet_operator.cluster import Cluster, HttpTransport
from embedfleet_operator.cluster.transport import APPLY
from embedfleet_operator.credentials import Credentials
from embedfleet_operator.equality import unchanged
from embedfleet_operator.observe import Observer, Seen
from embedfleet_operator.observed import Way, plain
from embedfleet_operator.pods import Pods
from embedfleet_operator.reconcile import Reconciler
from tests.support.fields import Case, cases
from tests.support.operators import Place, configuration_of, manifest_of, whole_pass

Plain = dict[str, Any]
Essence = dict[tuple[str, str], Plain]
UNSEEN = {
    ".rollout.waitForCapacitySeconds": "it is the operator's alone",
    ".monitoring.serviceMonitor.enabled": "this API server does not know the type; a golden shows it",
    ".monitoring.serviceMonitor.labels": "as above",
    ".monitoring.serviceMonitor.intervalSeconds": "as above",
}
"""Fields that no child here shows, and why."""


@pytest.mark.requirement("O7")
def test_every_field_set_changed_and_unset(place: Place) -> None:
    """With each field set and changed every child is as rendered and others than before; with it unset all is as it
    was, and a pass finds nothing more to write. Nothing is left but settings that a ReplicaSet still names.
    """
    wrong = asyncio.run(all_cases(place))
    assert not wrong, "\n".join(wrong)


async def all_cases(place: Place) -> list[str]:
    """What does not hold, for each field for which something does not."""
    configuration = configuration_of(place, place.cluster.kubeconfig, "test", api_server_cidrs=("10.0.0.9/32",))
    async with HttpTransport(Credentials(configuration)) as http, Pods() as pods:
        way = Counted(http)
        cluster = Cluster(way)
        observer = Observer(cluster, pods, configuration)
        bench = Bench(place, way, cluster, observer)
        return [problem for case in cases() if (problem := await bench.run(case))]


class Counted:
    """A way to the API server that counts writes."""

    def __init__(self, inner: HttpTransport) -> None:
        self._inner = inner
        self.writes = 0

    async def request(
        self, method: str, path: str, query: Mapping[str, str], body: Plain | None, content: str
    ) -> Plain:
        self.writes += method != "GET"
        return await self._inner.request(method, path, query, body, content)


class Bench:
    """One service whose spec is changed over and over."""

    def __init__(self, place: Place, way: Counted, cluster: Cluster, observer: Observer) -> None:
        self._place, self._way, self._cluster, self._observer = place, way, cluster, observer
        self._reconciler = Reconciler(cluster, observer, "test")

    async def run(self, case: Case) -> str | None:
        """What does not hold of a field; None when all does."""
        try:
            before = await self._at(case.before)
            steps = [await self._at(spec) for spec in case.steps]
            after = await self._at(case.before)
            assert after == before, f"unset, the children are not as before: {differing(before, after)}"
            seen = [before != steps[0], steps[0] != steps[1]]
            assert seen == [case.path not in UNSEEN] * 2, f"seen in children when set, when changed: {seen}"
        except Exception as error:  # noqa: BLE001  # each field is to be tried
            return f"spec{case.path}: {error!r}"
        return None

    async def _at(self, spec: Plain) -> Essence:
        """The children that `spec` has, once nothing more is to be written."""
        tree = await self._apply(spec)
        seen, wanted = await self._settled(tree)
        for one in wanted:
            key = one["kind"], one["metadata"]["name"]
            assert unchanged(one, seen.children[key]), f"{key} is not as rendered"
        return {key: essence(seen.children[key]) for key in keys(wanted)}

    async def _settled(self, tree: Plain) -> tuple[Seen, list[render.Object]]:
        """What is seen and what is rendered, once nothing else is left; Kubernetes clears old ReplicaSets away late."""
        for _ in range(100):
            await self._until_quiet()
            seen = await self._observer.look(tree)
            wanted = render.objects(EmbeddingService.model_validate(tree), seen.site, way_of(seen))
            named = {("ConfigMap", name) for one in seen.observed.replica_sets for name in one.config_maps}
            left = seen.children.keys() - keys(wanted) - named
            if not left:
                return seen, wanted
            await asyncio.sleep(0.1)
        raise AssertionError(f"left over: {left}")

    async def _apply(self, spec: Plain) -> Plain:
        """Server-side apply, so that what a spec no longer has is taken away."""
        path = resources.SERVICES.path(self._place.namespace, self._place.name)
        manifest = manifest_of(self._place.name) | {"spec": spec}
        query = {"fieldManager": "user", "fieldValidation": "Strict"}
        return await self._way.request("PATCH", path, query, manifest, APPLY)

    async def _until_quiet(self) -> None:
        """Until the Deployment's controller has caught up and a pass has nothing to write."""
        for _ in range(100):
            before = self._way.writes
            await whole_pass(self._reconciler, self._place.namespace, self._place.name)
            told = await self._cluster.service(self._place.namespace, self._place.name) or {}
            if self._way.writes == before and not _is_applying(told):
                return
        raise AssertionError("each pass writes something")


def _is_applying(service: Plain) -> bool:
    """The Deployment's controller has yet to see the newest spec, and may yet clear away an old ReplicaSet."""
    return any(one.get("reason") == "Applying" for one in plain.entries(service, "status", "conditions"))


def keys(objects: list[render.Object]) -> set[tuple[str, str]]:
    """Kind and name of each."""
    return {(one["kind"], one["metadata"]["name"]) for one in objects}


def way_of(seen: Seen) -> Way:
    """The way that the Deployment goes just now."""
    assert seen.observed.deployment is not None
    return seen.observed.deployment.way


def essence(tree: Plain) -> Plain:
    """A child without what the API server and controllers put in."""
    annotations = plain.mapping(tree, "metadata", "annotations")
    kept = {key: value for key, value in annotations.items() if not key.startswith("deployment.kubernetes.io/")}
    labels = plain.mapping(tree, "metadata", "labels")
    rest = {key: value for key, value in tree.items() if key not in ("metadata", "status", "data")}
    files = {name: json.loads(content) for name, content in tree.get("data", {}).items()}
    for content in files.values():
        if content.pop("generation", None):  # of the spec: grows with each edit
            del kept[names.RENDERED]
    return {**rest, "labels": dict(labels), "annotations": kept, "files": files}


def differing(before: Essence, after: Essence) -> list[str]:
    """Which children differ, and in what."""
    found = []
    for key in sorted(before.keys() | after.keys()):
        one, other = before.get(key, {}), after.get(key, {})
        found += [f"{key} {part}" for part in one.keys() | other.keys() if one.get(part) != other.get(part)]
    return found


def test_names_are_of_the_contract() -> None:
    """The table of fields that no child shows has no field that the contract no longer has."""
    assert set(UNSEEN) <= {case.path for case in cases()}
