"""What a change of the spec does to running pods, on a real API server."""

from typing import Any

import pytest

from embedfleet_operator import names
from tests.support.cluster_objects import answer
from tests.support.operators import CHILDREN, Place, StateServer, until, working

Plain = dict[str, Any]
OTHER = [{"name": "m", "source": {"path": "/models/n"}}]


def essence(place: Place) -> list[Plain]:
    """The children as far as a rendering decides them: not their versions, uids, times and controllers' fields."""
    return sorted((_essence(one) for one in place.all(CHILDREN)), key=str)


def _essence(tree: Plain) -> Plain:
    metadata = {key: tree["metadata"].get(key) for key in ("name", "labels")}
    return {key: value for key, value in tree.items() if key not in ("metadata", "status", "data")} | metadata


def template(place: Place) -> Plain:
    """The Deployment's pod template."""
    found: Plain = place.get("deployment")["spec"]["template"]
    return found


@pytest.mark.requirement("O2", "O4")
def test_a_batching_change_reaches_pods_without_a_rollout(place: Place) -> None:
    """Only `NAME-batching` changes; running pods are touched, so that the kubelet syncs at once, and the status tells
    which generation they run.
    """
    with StateServer() as server, working(place) as operator:
        place.apply(replicas=1)
        place.settled()
        server.answer = answer(1)
        place.make_ready(place.pods()[0]["metadata"]["name"], server.address)
        until(lambda: place.condition()["status"] == "True")
        before, pod = template(place), place.pods()[0]
        place.apply(replicas=1, batching={"maxBatchSize": 17})
        until(lambda: place.condition()["reason"] == "SettingsPending")
        until(lambda: place.pods()[0]["metadata"].get("annotations", {}).get(names.BATCHING) == "2")
        assert place.get("embed")["status"]["batchingGeneration"] == 1
        server.answer = answer(2)
        until(lambda: place.condition()["status"] == "True")
        assert place.get("embed")["status"]["batchingGeneration"] == 2
        assert '"maxBatchSize":17' in place.get("configmap", "semantic-batching")["data"]["batching.json"].replace(
            " ", ""
        )
        assert template(place) == before
        assert place.pods()[0]["metadata"]["uid"] == pod["metadata"]["uid"]
        deployed = [one for one in place.written_by(operator.user) if one["objectRef"]["resource"] == "deployments"]
    assert len(deployed) == 1


@pytest.mark.requirement("O2")
def test_a_model_change_is_a_rollout(place: Place) -> None:
    """Other models have another ConfigMap and another pod template; the older one stays while it is named."""
    with working(place):
        place.apply()
        place.settled()
        before = {one["metadata"]["name"] for one in place.all("configmaps")}
        place.apply(models=OTHER)
        until(lambda: len(place.all("replicasets")) == 2)
        after = {one["metadata"]["name"] for one in place.all("configmaps")}
    assert before < after
    assert len(after - before) == 1


@pytest.mark.requirement("O7")
def test_there_and_back_again_is_as_before(place: Place) -> None:
    """A spec that is changed and changed back gives the children that it gave at first, with the same ReplicaSet."""
    with working(place):
        place.apply()
        place.settled()
        before = essence(place)
        place.apply(models=OTHER, batching={"maxBatchSize": 9}, podTemplate={"spec": {"priorityClassName": "x"}})
        until(lambda: template(place)["spec"].get("priorityClassName") == "x")
        place.apply()
        until(lambda: "priorityClassName" not in template(place)["spec"])
        place.settled()
        until(lambda: [one for one in essence(place) if "models" not in one["name"]] == leaving_models_out(before))
        assert template(place) == next(one for one in before if one["kind"] == "Deployment")["spec"]["template"]


def leaving_models_out(found: list[Plain]) -> list[Plain]:
    """Those that there is one of: an older models' ConfigMap may stay for its ReplicaSet."""
    return [one for one in found if "models" not in one["name"]]


@pytest.mark.requirement("O7")
def test_equal_amounts_are_no_change(place: Place) -> None:
    """A quantity that is written otherwise (`1000m`, `1`) makes no other pod template, and the Deployment no write."""

    def limits(cpu: str) -> Plain:
        return {"spec": {"containers": [{"name": "server", "resources": {"limits": {"cpu": cpu}}}]}}

    with working(place) as operator:
        place.apply(podTemplate=limits("1000m"))
        place.settled()
        place.apply(podTemplate=limits("1"))
        until(lambda: place.get("embed")["status"]["observedGeneration"] == 2)
        place.settled()
        deployed = [one for one in place.written_by(operator.user) if one["objectRef"]["resource"] == "deployments"]
    assert len(deployed) == 1


@pytest.mark.requirement("O5", "O7")
def test_a_pod_template_that_is_refused_is_said_and_undone(place: Place) -> None:
    """What only the API server can refuse becomes a condition while the pods stay; the spec set right, all goes on."""
    with working(place):
        place.apply()
        place.settled()
        before = template(place)
        place.apply(podTemplate={"spec": {"dnsPolicy": "Nonsense"}})
        until(lambda: place.condition()["reason"] == "PodTemplateInvalid")
        assert "dnsPolicy" in place.condition()["message"]
        assert template(place) == before
        place.apply()
        until(lambda: place.condition()["reason"] == "Unschedulable")
        assert template(place) == before


@pytest.mark.requirement("O5")
def test_a_missing_secret_is_said(place: Place) -> None:
    """A Secret that the spec names and that is not there is named; an empty value too, until it is put right."""
    with working(place, resync_seconds=1):
        place.apply(auth={"apiKeysSecretRef": {"name": "keys"}})
        until(lambda: place.condition()["reason"] == "SecretMissing")
        place.kubectl("create", "secret", "generic", "keys", "--from-literal=a=")
        until(lambda: place.condition()["reason"] == "SecretKeyEmpty")
        place.patch("secret", "keys", {"stringData": {"a": "value"}})
        until(lambda: place.condition()["reason"] == "Unschedulable")


def test_a_spec_without_an_image_is_said(place: Place) -> None:
    """Without an image nothing can be made: said, not fatal, and nothing of it is half made."""
    with working(place):
        place.apply(image=None)
        until(lambda: place.condition()["reason"] == "ImageUnset")
        assert not place.all(CHILDREN)
