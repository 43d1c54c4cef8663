"""Whether a child in the cluster is what was rendered: drift is seen, defaults and others' fields are not."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from embedfleet_operator import render
from embedfleet_operator.equality import holds, unchanged
from tests.unit.operator.regenerate import NAMES, SITE, manifest

Object = dict[str, Any]


def deployment() -> Object:
    return next(one for one in render.objects(manifest("cpu"), SITE) if one["kind"] == "Deployment")


def lived(made: Object) -> Object:
    """As an API server hands it out: with defaults and others' fields beside it."""
    live = copy.deepcopy(made)
    live["metadata"] |= {"uid": "u", "resourceVersion": "7", "managedFields": []}
    live["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "3"
    container = live["spec"]["template"]["spec"]["containers"][0]
    container["imagePullPolicy"] = "IfNotPresent"
    container["env"].insert(0, {"name": "INJECTED", "value": "by an admission webhook"})
    live["spec"]["template"]["spec"]["containers"].insert(0, {"name": "sidecar"})
    live["status"] = {"replicas": 1}
    return live


@pytest.mark.requirement("O8")
@pytest.mark.parametrize("name", NAMES)
def test_what_is_already_there_is_not_written_again(name: str) -> None:
    """Each child of each golden equals itself as an API server might hand it out."""
    for made in render.objects(manifest(name), SITE):
        assert unchanged(made, made | {"status": {}, "metadata": made["metadata"] | {"uid": "u"}})
    assert unchanged(deployment(), lived(deployment()))


@pytest.mark.requirement("O1")
def test_an_edit_of_a_rendered_field_is_seen() -> None:
    """Somebody else's change to what the operator asks for is drift."""
    spoils: list[Callable[[Object], Any]] = [
        lambda live: live["spec"].update(replicas=7),
        lambda live: live["spec"]["template"]["spec"]["containers"][1].update(image="other"),
        lambda live: live["spec"]["template"]["spec"]["containers"][1]["resources"]["limits"].update(cpu="9"),
        lambda live: live["spec"]["template"]["spec"]["containers"].pop(1),
        lambda live: live["spec"]["template"]["spec"]["containers"][1]["args"].append("--more"),
        lambda live: live["metadata"]["labels"].pop("embedfleet.dev/service"),
    ]
    for spoil in spoils:
        live = lived(deployment())
        spoil(live)
        assert not unchanged(deployment(), live)


def test_what_is_no_longer_asked_for_is_seen() -> None:
    """A field that a new rendering lacks is still in the cluster: the digest tells."""
    before, after = deployment(), deployment()
    del after["spec"]["progressDeadlineSeconds"]
    after["metadata"]["annotations"]["embedfleet.dev/rendered"] = "another"
    assert holds({"spec": after["spec"]}, before)
    assert not unchanged(after, before)


def test_equal_quantities_are_equal() -> None:
    """An API server may write an amount in another way."""
    assert holds({"limits": {"cpu": "1", "memory": "1Gi"}}, {"limits": {"cpu": "1000m", "memory": "1024Mi"}})
    assert not holds({"limits": {"cpu": "1"}}, {"limits": {"cpu": "2"}})
    assert not holds({"limits": {"cpu": "1"}}, {"limits": {}})
    assert holds({"emptyDir": {"sizeLimit": "1024Mi"}}, {"emptyDir": {"sizeLimit": "1Gi"}})
