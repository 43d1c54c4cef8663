"""What was there before: services made anew under their names, and children that somebody made or changed by hand."""

import json

import pytest

from tests.support.faulty_proxy import proxied
from tests.support.operators import CHILDREN, Place, until, working


@pytest.mark.requirement("O7")
@pytest.mark.parametrize("cascade", ["background", "foreground", "orphan"])
def test_a_service_made_anew(place: Place, cascade: str) -> None:
    """A service that is deleted and made anew at once has all its children, of which none is the former one's; what
    the operator deletes meanwhile it names by uid, and pods that were left behind serve on.
    """
    with proxied(place.cluster.kubeconfig) as proxy:
        with working(place, kubeconfig=proxy.kubeconfig, resync_seconds=2):
            place.apply(replicas=1)
            old = place.settled()["metadata"]["uid"]
            pods = {one["metadata"]["uid"] for one in place.pods()}
            place.kubectl("delete", "embed", place.name, f"--cascade={cascade}", "--wait=false")
            until(lambda: place.apply(replicas=1)["metadata"]["uid"] != old)
            new = place.get("embed")["metadata"]["uid"]
            until(lambda: owners(place) == {new} and place.settled())
        assert all((call.body or {})["preconditions"]["uid"] for call in proxy.calls if call.method == "DELETE")
    assert len(place.all(CHILDREN)) == 7
    assert len(place.pods()) == 1
    if cascade == "orphan":
        assert {one["metadata"]["uid"] for one in place.pods()} == pods


def owners(place: Place) -> set[str | None]:
    """The uids that the children name as owners; None for a child without one."""
    found: set[str | None] = set()
    for one in place.all(CHILDREN):
        found |= {owner["uid"] for owner in one["metadata"].get("ownerReferences", [])} or {None}
    return found


@pytest.mark.requirement("O1")
def test_a_fixed_config_map_that_was_replaced(place: Place) -> None:
    """The models' ConfigMap cannot be edited, but it can be made anew with other content: it is put right."""
    with working(place):
        place.apply(replicas=1)
        place.settled()
    (good,) = [one for one in place.all("configmaps") if one.get("immutable")]
    bad = {key: good[key] for key in ("apiVersion", "kind", "immutable")} | {"data": {"models.json": "{}"}}
    bad["metadata"] = {key: good["metadata"][key] for key in ("name", "labels", "annotations", "ownerReferences")}
    place.kubectl("replace", "--force", "-f", "-", stdin=json.dumps(bad))
    with working(place):
        until(lambda: place.get("configmap", good["metadata"]["name"])["data"] == good["data"])


@pytest.mark.requirement("O1", "O4")
def test_an_edit_by_hand_is_said(place: Place) -> None:
    """An event names the child that was changed and by whom; the settings are as they were, the service goes on."""
    with working(place):
        place.apply(replicas=1)
        place.settled()
        place.patch("configmap", "semantic-batching", {"data": {"batching.json": "{}"}}, "--field-manager=carl")
        (told,) = until(lambda: [one["note"] for one in place.all_events() if one["reason"] == "Repaired"])
        until(lambda: place.get("configmap", "semantic-batching")["data"]["batching.json"] != "{}")
    assert "ConfigMap semantic-batching" in told
    assert "carl" in told
