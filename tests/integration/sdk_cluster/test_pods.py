"""From outside and inside a real cluster to a real server in its pods."""

import json
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import embedfleet
from embedfleet import errors
from embedfleet.kube.access import FORWARD, SEE, Need, proxying, rules
from tests.cluster.cluster import Cluster
from tests.support import pods
from tests.support.certificates import pair
from tests.support.clusters import running
from tests.support.process import process

ROOT = Path(__file__).resolve().parents[3]
TEXTS = [f"text {i} of some words" for i in range(300)]


@dataclass(frozen=True)
class Town:
    """A namespace with the service `semantic` in two pods that ask for a key, and an account for each route."""

    cluster: Cluster
    namespace: str

    def user(self, monkeypatch: pytest.MonkeyPatch, *needs: Need) -> None:
        """Become a user who may do this and no more."""
        name = f"user-{secrets.token_hex(3)}"
        text = f"""apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: {name}}}
rules:
{rules(needs)}
"""
        if needs:
            self.cluster.kubectl("-n", self.namespace, "apply", "-f", "-", stdin=text)
            binding = ("create", "rolebinding", name, f"--role={name}", f"--user={name}")
            self.cluster.kubectl("-n", self.namespace, *binding)
        monkeypatch.setenv("KUBECONFIG", str(self.cluster.kubeconfig_for(name)))


@pytest.fixture(scope="module")
def with_node() -> Iterator[Cluster]:
    """A cluster of its own: what other tests left on the shared node must not keep these pods waiting."""
    with running(nodes=1) as made:
        yield made


@pytest.fixture(scope="module")
def town(with_node: Cluster) -> Iterator[Town]:
    """The service, up."""
    cluster, namespace = with_node, f"town-{secrets.token_hex(3)}"
    cluster.kubectl("apply", "-f", str(ROOT / "crds"))
    cluster.kubectl("wait", "crd", "--all", "--for=condition=Established", "--timeout=60s")
    cluster.kubectl("create", "namespace", namespace)
    servers = [pods.server_pod(name, "semantic", "semantic", "code", guarded=True) for name in ("one", "two")]
    wanted = pods.manifest("semantic", "semantic", "code")
    pods.put(cluster, namespace, wanted, pods.service_object("semantic"), *servers)
    pods.wait_ready(cluster, namespace, "one", "two")
    url = f"http://semantic.{namespace}.svc:8080"
    pods.told(cluster, namespace, "semantic", observedGeneration=1, replicas=2, readyReplicas=2, url=url,
              conditions=[pods.ready()])  # fmt: skip
    yield Town(cluster, namespace)
    cluster.kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.fixture(autouse=True)
def _laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine where nothing runs; the key is known."""
    for name in ("EMBEDFLEET_URL", "EMBEDFLEET_NAMESPACE", "EMBEDFLEET_CA_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("EMBEDFLEET_API_KEY", pods.KEY)


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """What the same server gives for `TEXTS` without a cluster."""
    with process(tmp_path_factory.mktemp("direct")) as running:
        running.line("is ready at")
        with embedfleet.connect(url=running.record.url) as service:
            return service.embed(TEXTS)


@pytest.mark.requirement("K1")
def test_by_the_service_proxy(town: Town, monkeypatch: pytest.MonkeyPatch, direct: np.ndarray) -> None:
    """With the rules of the proxy alone a laptop gets the vectors that a direct client gets, key and all."""
    town.user(monkeypatch, *SEE, *proxying("semantic", tls=False))
    with embedfleet.connect("semantic", namespace=town.namespace) as service:
        assert service.route.taken is not None
        assert service.route.taken.route == "service proxy"
        result = service.embed(TEXTS, with_info=True)
        assert np.array_equal(result.array, direct)
        assert result.pods
        assert set(result.pods) <= {"one", "two"}
        assert service.info.name == "semantic"


@pytest.mark.requirement("K1")
def test_by_port_forward_while_pods_go(town: Town, monkeypatch: pytest.MonkeyPatch, direct: np.ndarray) -> None:
    """With the rules of port-forward alone too; a pod that goes in the middle costs no vector and no order."""
    town.user(monkeypatch, *SEE, *FORWARD)
    with embedfleet.connect("semantic", namespace=town.namespace) as service:
        assert service.route.taken is not None
        assert service.route.taken.route == "port-forward"
        assert "not allowed" in str(service.route)
        result = service.embed(TEXTS, with_info=True)
        assert np.array_equal(result.array, direct)
        assert result.pods == ("one", "two")  # in turn

        def texts() -> Iterator[str]:
            for turn in range(8):
                if turn == 2:
                    town.cluster.kubectl("-n", town.namespace, "delete", "pod", "one", "--wait=false")
                yield from TEXTS

        assert np.array_equal(service.embed(texts()), np.tile(direct, (8, 1)))
    put_back = pods.server_pod("one", "semantic", "semantic", "code", guarded=True)
    town.cluster.kubectl("-n", town.namespace, "wait", "pod/one", "--for=delete", "--timeout=60s")
    pods.put(town.cluster, town.namespace, put_back)
    pods.wait_ready(town.cluster, town.namespace, "one")


@pytest.mark.requirement("K1")
def test_an_interrupted_client_leaves_nothing_open(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing a client by port-forward ends its tunnels: no warning of an unclosed session, no thread more."""
    town.user(monkeypatch, *SEE, *FORWARD)
    embedfleet.connect("semantic", namespace=town.namespace).close()
    before = threading.active_count()
    with embedfleet.connect("semantic", namespace=town.namespace) as service:
        service.embed("a")
    assert threading.active_count() == before


def test_without_the_key_the_service_says_so(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's own 401 is final: no other route is tried, and no login is asked for."""
    monkeypatch.setenv("EMBEDFLEET_API_KEY", "wrong")
    town.user(monkeypatch, *SEE, *proxying("semantic", tls=False), *FORWARD)
    with pytest.raises(errors.RequestRejected) as caught:
        embedfleet.connect("semantic", namespace=town.namespace)
    assert any("EMBEDFLEET_API_KEY" in note for note in caught.value.__notes__)


@pytest.mark.requirement("K1")
def test_a_service_with_tls(town: Town, monkeypatch: pytest.MonkeyPatch, direct: np.ndarray) -> None:
    """Its certificate is of nobody known; the API server's proxy does not ask, and port-forward does as it does."""
    certificate, key = pair("secure")
    tls = {"tls.crt": certificate, "tls.key": key}
    pods.put(
        town.cluster,
        town.namespace,
        pods.manifest("secure", tls={"secretRef": {"name": "pair"}}),
        pods.service_object("secure"),
        pods.server_pod("secure", "secure", "semantic", tls=tls),
    )
    pods.wait_ready(town.cluster, town.namespace, "secure")
    for route, needs in (("service proxy", proxying("secure", tls=True)), ("port-forward", FORWARD)):
        town.user(monkeypatch, *SEE, *needs)
        with embedfleet.connect("secure", namespace=town.namespace) as service:
            assert service.route.taken is not None
            assert service.route.taken.route == route
            assert np.array_equal(service.embed(TEXTS), direct)


@pytest.mark.requirement("K1", "K2")
def test_in_a_pod_by_its_account(town: Town) -> None:
    """A model's name is looked up with the pod's own account, and its service is then reached by DNS."""
    account = f"""apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: notebook}}
rules:
{rules(SEE)}
"""
    town.cluster.kubectl("-n", town.namespace, "apply", "-f", "-", stdin=account)
    subject = f"--serviceaccount={town.namespace}:default"
    town.cluster.kubectl("-n", town.namespace, "create", "rolebinding", "notebook", "--role=notebook", subject)
    given = {"XDG_RUNTIME_DIR": "/scratch", "EMBEDFLEET_API_KEY": pods.KEY}
    pods.put(town.cluster, town.namespace, pods.python_pod("by-model", _INSIDE.replace("semantic", "code"), given))
    succeeded = "--for=jsonpath={.status.phase}=Succeeded"
    try:
        town.cluster.kubectl("-n", town.namespace, "wait", "pod/by-model", succeeded, "--timeout=90s")
    finally:
        out = town.cluster.kubectl("-n", town.namespace, "logs", "by-model")
    assert json.loads(out.splitlines()[-1]) == {"shape": [2, 8], "route": "cluster DNS", "ours": True}


@pytest.mark.requirement("K1", "K2")
def test_in_a_pod_by_dns_with_no_token(town: Town) -> None:
    """A pod without a service account's token finds the service by its name in its own namespace, and by another's."""
    for name, environ in (("near", {}), ("far", {"EMBEDFLEET_NAMESPACE": town.namespace})):
        namespace = town.namespace if name == "near" else "default"
        given = {"XDG_RUNTIME_DIR": "/scratch", "EMBEDFLEET_API_KEY": pods.KEY, **environ}
        made = pods.python_pod(name, _INSIDE, given)
        made["spec"]["automountServiceAccountToken"] = False
        pods.put(town.cluster, namespace, made)
        succeeded = "--for=jsonpath={.status.phase}=Succeeded"
        try:
            town.cluster.kubectl("-n", namespace, "wait", f"pod/{name}", succeeded, "--timeout=90s")
        finally:
            out = town.cluster.kubectl("-n", namespace, "logs", name)
        assert json.loads(out.splitlines()[-1]) == {"shape": [2, 8], "route": "cluster DNS", "ours": True}
        town.cluster.kubectl("-n", namespace, "delete", "pod", name, "--wait=false")


_INSIDE = """
import json
import embedfleet as sdk
with sdk.connect("semantic") as service:
    result = service.embed(["a", "b"], with_info=True)
    ours = len(result.pods) == 1 and result.pods[0] in ("one", "two")
    print(json.dumps({"shape": result.array.shape, "route": service.route.taken.route, "ours": ours}))
"""


def test_the_doctor_walks_every_route(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them are tried though the proxy would do; what may not be done comes with the role that grants it."""
    town.user(monkeypatch, *SEE, *proxying("semantic", tls=False))
    told = embedfleet.doctor("semantic", namespace=town.namespace)
    assert told.ok
    outcomes = {one.route: one.outcome for one in told.tried}
    assert outcomes["service proxy"] == "ok"
    assert outcomes["port-forward"] == "failed"
    assert 'resources: ["pods/portforward"], verbs: [get, create]' in str(told)
