"""The generated role is enough, and has nothing that is not used."""

import json
from pathlib import Path

import pytest

from embedfleet_operator import permissions, resources
from tests.support import privileges
from tests.support.operators import Place, audited, until, working

ROLES = Path(__file__).resolve().parents[3] / "charts" / "embedfleet" / "generated" / "roles.yaml"
UNSEEN = {
    # An admission plug-in asks for it within the API server, which makes no request of its own. That it is needed is
    # what test_each_verb.py shows.
    ("embeddingservices/finalizers", "update"),
}
"""What the table allows and no audit log can show."""


@pytest.mark.requirement("O6")
def test_the_role_is_enough_and_is_used(lone_place: Place) -> None:
    """An operator of the whole cluster with the generated role alone does all its work and is refused nothing; each of
    its verbs is seen in the API server's audit log.
    """
    place = lone_place
    place.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(privileges.MONITORS))
    place.cluster.kubectl("wait", "crd", "--all", "--for=condition=Established", "--timeout=60s")
    user = f"system:serviceaccount:{place.namespace}:operator"
    with working(place, kubeconfig=account(place), user=user, namespaces=()):
        live(place, user)
        until(lambda: is_all_used(place, user, "watch"))
    until(lambda: is_all_used(place, user))  # a watch is in the log once it has ended
    requests = audited(place.cluster, user)
    forbidden = [(one["verb"], one["requestURI"]) for one in requests if one["responseStatus"]["code"] == 403]
    assert not forbidden


def live(place: Place, user: str) -> None:
    """What a service may go through: made, served, edited, rolled out, in want of room, and no longer asked for."""
    place.apply(**privileges.RICH)
    until(place.pods)
    pod = place.pods()[0]["metadata"]["name"]
    privileges.start_container(place, pod)
    until(lambda: ("events", "list") in used(place, user))
    place.make_ready(pod, "127.0.0.9")
    until(lambda: ("pods", "patch") in used(place, user))
    privileges.roll(place)
    until(lambda: ("nodes", "list") in used(place, user))
    for resource in (*resources.CHILDREN, *resources.OPTIONAL):
        privileges.plant(place, resource)


def is_all_used(place: Place, user: str, but: str = "") -> bool:
    """Whether nothing is unused, of verbs other than `but`; `KeyError` with what is, for `until` to tell."""
    if rest := {pair for pair in unused(place, user) if pair[1] != but}:
        raise KeyError(rest)
    return True


def unused(place: Place, user: str) -> set[tuple[str, str]]:
    """What the table allows and `user` has not used."""
    allowed = {(one.name, str(verb)) for one in permissions.TABLE for verb in one.verbs}
    return allowed - used(place, user) - UNSEEN


def used(place: Place, user: str) -> set[tuple[str, str]]:
    """Each resource and verb that `user` has used."""
    objects = [(one["objectRef"], one) for one in audited(place.cluster, user) if "objectRef" in one]
    found = {(resource_of(about), one["verb"]) for about, one in objects if "resource" in about}
    made = {(resource_of(about), "create") for about, one in objects if one["responseStatus"]["code"] == 201}
    return found | made  # an apply of what was not there is asked for both


def resource_of(about: dict[str, str]) -> str:
    """The resource as a role names it."""
    return "/".join(filter(None, [about["resource"], about.get("subresource")]))


def account(place: Place) -> Path:
    """A service account with the generated roles, as the chart binds them; gives its kubeconfig."""
    place.kubectl("apply", "-f", str(ROLES))
    place.kubectl("create", "serviceaccount", "operator")
    subject = f"--serviceaccount={place.namespace}:operator"
    place.kubectl("create", "clusterrolebinding", place.namespace, "--clusterrole=embedfleet-operator", subject)
    place.kubectl("create", "rolebinding", "lease", "--clusterrole=embedfleet-operator-lease", subject)
    return place.cluster.kubeconfig_for_account(place.namespace, "operator")
