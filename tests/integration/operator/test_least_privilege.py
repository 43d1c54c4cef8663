"""The generated role is enough, and has nothing that is not used."""

from pathlib import Path

import pytest

from embedfleet_operator import permissions
from tests.support.operators import Place, audited, until, working

ROLES = Path(__file__).resolve().parents[3] / "charts" / "embedfleet" / "generated" / "roles.yaml"
UNSEEN = {
    ("embeddingservices/finalizers", "update"),  # asked by an admission plug-in that this API server does not run
    ("servicemonitors", "*"),  # a type that this cluster does not know
    ("nodes", "list"),  # read when a rollout with GPUs finds no room
    ("events", "list"),  # read of pods that a kubelet is starting
    ("persistentvolumeclaims", "get"),  # of a spec that names one
    ("serviceaccounts", "delete"),  # never left over: each service has one; the role is the same for all children
    ("services", "delete"),
    ("poddisruptionbudgets", "delete"),
    ("deployments", "delete"),
    ("ingresses", "get"),
}
"""What the table allows and this test does not come to."""


@pytest.mark.requirement("O6")
def test_the_role_is_enough_and_is_used(place: Place) -> None:
    """An operator of the whole cluster with the generated role alone does all its work and is refused nothing; each of
    its verbs is seen in the API server's audit log, but for those that need what is not here.
    """
    user = f"system:serviceaccount:{place.namespace}:operator"
    kubeconfig = account(place)
    with working(place, kubeconfig=kubeconfig, user=user, namespaces=()):
        place.apply(auth={"apiKeysSecretRef": {"name": "keys"}}, network={"ingress": {"host": "e.example.com"}})
        place.settled()
        address = "127.0.0.9"
        place.make_ready(place.pods()[0]["metadata"]["name"], address)
        place.apply(network={"enabled": False})
        until(lambda: not place.all("networkpolicies,ingresses"))
        place.patch("service", place.name, {"metadata": {"labels": {"embedfleet.dev/service": None}}})
        until(lambda: "embedfleet.dev/service" in place.get("service")["metadata"]["labels"])
        until(lambda: ("pods", "patch") in used(place, user))
        place.apply(models=[{"name": "m", "source": {"path": "/models/n"}}])
        until(lambda: len(place.all("configmaps")) == 4)
        place.kubectl("delete", "replicasets", "-l", "embedfleet.dev/service=semantic", "--wait=false")
        until(lambda: ("configmaps", "delete") in used(place, user))
        place.kubectl("delete", "embed", place.name)
    requests = audited(place.cluster, user)
    forbidden = [(one["verb"], one["requestURI"]) for one in requests if one["responseStatus"]["code"] == 403]
    assert not forbidden
    allowed = {(one.name, verb) for one in permissions.TABLE for verb in one.verbs}
    unused = allowed - used(place, user) - UNSEEN
    assert {pair for pair in unused if (pair[0], "*") not in UNSEEN} == set()


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
