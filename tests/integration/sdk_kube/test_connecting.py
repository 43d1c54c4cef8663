"""From a kubeconfig to a service, over an API server that keeps the protocol and misbehaves on request."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web

import embedfleet
from embedfleet import environment, errors
from embedfleet.environment import Environment
from embedfleet.walk import Wanted, walk
from tests.support import fake_api_server as kube
from tests.support import fake_server
from tests.support.fake_api_server import FakeApiServer
from tests.support.fake_server import FakeServer, vectors

TEXTS = [f"text {i}" for i in range(40)]
ROOT = Path(__file__).resolve().parents[3]
NO_PROXY = {"create services/proxy"}


@pytest.fixture(autouse=True)
def _laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine where nothing runs, with a kubeconfig that a test may write."""
    for name in ("EMBEDFLEET_URL", "EMBEDFLEET_NAMESPACE", "EMBEDFLEET_CA_FILE", "EMBEDFLEET_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))


@pytest.fixture
def backend() -> Iterator[FakeServer]:
    with fake_server.serving(FakeServer()) as fake:
        yield fake


@pytest.fixture
def api(tmp_path: Path, backend: FakeServer) -> Iterator[FakeApiServer]:
    """A cluster with the service `semantic` in the context's namespace."""
    pods = [kube.ready_pod("p-1"), kube.ready_pod("p-2")]
    fake = FakeApiServer([kube.service("default", "semantic", "semantic", "code")], pods, backend=backend)
    with kube.serving(fake):
        kube.kubeconfig(tmp_path / "config", fake.url)
        yield fake


def taken(service: embedfleet.Service) -> str:
    assert service.route.taken is not None
    return service.route.taken.route


@pytest.mark.requirement("K1")
def test_the_proxy_carries_the_key_beside_the_login(api: FakeApiServer, tmp_path: Path) -> None:
    """The service's key goes as X-API-Key, since the API server keeps Authorization for itself."""
    api.tokens = {"me"}
    kube.kubeconfig(tmp_path / "config", api.url, token="me")
    with embedfleet.connect("semantic", api_key="k") as service:
        assert taken(service) == "service proxy"
        assert np.array_equal(service.embed(TEXTS), vectors(TEXTS))
    assert all(headers["X-API-Key"] == "k" and "Authorization" not in headers for headers in api.proxied)


@pytest.mark.requirement("K1")
def test_port_forward_takes_every_ready_pod_in_turn(api: FakeApiServer) -> None:
    """Where the proxy may not be used; the bytes of a tunnel may be cut anywhere."""
    api.denied = NO_PROXY
    texts = [f"{text} {number}" for number in range(200) for text in TEXTS]  # none twice: each would be sent once
    with embedfleet.connect("semantic") as service:
        assert taken(service) == "port-forward"
        assert np.array_equal(service.embed(texts), vectors(texts))
    asked = {path for path in api.paths if path.endswith("portforward")}
    assert asked == {f"GET /api/v1/namespaces/default/pods/{pod}/portforward" for pod in ("p-1", "p-2")}


@pytest.mark.requirement("K1")
def test_a_tunnel_that_breaks_costs_no_vector(api: FakeApiServer, backend: FakeServer) -> None:
    """The batch that was in flight is sent again over a new tunnel, and pods are asked for anew."""
    api.denied = NO_PROXY
    with embedfleet.connect("semantic") as service:
        service.embed("the pods are known by now")
        backend.faults = [fake_server.cut(), fake_server.cut(20), fake_server.cut(200)]
        before = api.paths.count("GET /api/v1/namespaces/default/pods")
        assert np.array_equal(service.embed(TEXTS), vectors(TEXTS))
    assert api.paths.count("GET /api/v1/namespaces/default/pods") > before


@pytest.mark.requirement("K1")
def test_the_async_twin_goes_the_same_way(api: FakeApiServer) -> None:
    """On the caller's own loop, and its connections are closed with it."""
    api.denied = NO_PROXY

    async def main() -> None:
        async with await embedfleet.connect_async("semantic") as service:
            assert np.array_equal(await service.embed(TEXTS), vectors(TEXTS))
            assert "port-forward" in repr(service)

    asyncio.run(main(), debug=True)


@pytest.mark.requirement("K1")
def test_an_expired_login_is_renewed_once_in_the_middle(api: FakeApiServer, tmp_path: Path) -> None:
    """A 401 of the API server runs the plug-in again, and the batch goes out with what it gives."""
    program, count = tmp_path / "login.py", tmp_path / "count"
    program.write_text(
        f"import json, pathlib; f = pathlib.Path({str(count)!r}); f.touch(); f.write_text(f.read_text() + 'x')\n"
        "print(json.dumps({'kind': 'ExecCredential', 'status': {'token': f't{len(f.read_text())}'}}))"
    )
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": sys.executable, "args": [str(program)]}
    api.tokens = {"t1"}
    kube.kubeconfig(tmp_path / "config", api.url, exec={**plugin, "interactiveMode": "Never"})
    with embedfleet.connect("semantic") as service:
        api.tokens = {"t2"}
        assert np.array_equal(service.embed(TEXTS), vectors(TEXTS))
        assert count.read_text() == "xx"
        api.tokens = {"another"}
        with pytest.raises(errors.RequestRejected, match="the API server answers HTTP 401"):
            service.embed("a")
        assert count.read_text() == "xxx"


@pytest.mark.requirement("K2")
def test_names_are_looked_for_in_the_contexts_namespace_then_in_all(api: FakeApiServer) -> None:
    """A service of another namespace is found when this one has none of the name; a model's name works too."""
    api.objects.append(kube.service("team-b", "shop", "goods"))
    api.backend = None
    for name, address in (("goods", "team-b/services/shop:http"), ("code", "default/services/semantic:http")):
        with pytest.raises(errors.ServiceUnavailable) as caught:
            embedfleet.connect(name)
        assert f"namespaces/{address}" in " ".join(api.paths), caught.value
        api.paths.clear()


@pytest.mark.requirement("K2")
def test_a_models_name_becomes_the_default_model(api: FakeApiServer, backend: FakeServer) -> None:
    """Calls go to that model."""
    with embedfleet.connect("code") as service:
        service.embed("a")
    assert backend.requests[-1]["model"] == "code"


@pytest.mark.requirement("K2")
def test_a_name_in_two_namespaces_is_refused_with_the_list(api: FakeApiServer) -> None:
    """Neither is taken by chance; namespace= chooses."""
    api.objects = [kube.service("team-a", "shop"), kube.service("team-b", "shop")]
    with pytest.raises(errors.AmbiguousName, match=r"team-a/shop .*; team-b/shop .*namespace=") as caught:
        embedfleet.connect("shop")
    assert caught.value.found == ("team-a/shop", "team-b/shop")


@pytest.mark.requirement("K2")
def test_nothing_of_that_name_says_what_exists_and_where_it_looked(api: FakeApiServer) -> None:
    """On this machine and in the cluster."""
    with pytest.raises(errors.ServiceNotFound) as caught:
        embedfleet.connect("serach")
    told = str(caught.value)
    for part in ("this machine", "namespace 'default' of context 'lab'", "default/semantic (models semantic, code)"):
        assert part in told
    assert caught.value.found == ("default/semantic",)
    api.denied = {"list embeddingservices everywhere"}
    with pytest.raises(errors.ServiceNotFound, match="other namespaces may not be looked into"):
        embedfleet.connect("serach")


def test_a_service_that_may_not_be_seen_is_reached_all_the_same(api: FakeApiServer) -> None:
    """Without a rule for EmbeddingServices the name is taken for the service's."""
    api.denied = {"list embeddingservices", "list embeddingservices everywhere"}
    with embedfleet.connect("semantic") as service:
        assert service.embed("a").shape == (8,)


@pytest.mark.requirement("K1")
def test_no_permission_at_all_is_told_with_the_role(api: FakeApiServer) -> None:
    """One error names what is missing on each route and has the YAML that grants it."""
    api.denied = {"create services/proxy", "create pods/portforward", "list pods"}
    with pytest.raises(errors.Forbidden) as caught:
        embedfleet.connect("semantic")
    told = str(caught.value)
    assert "not allowed in namespace 'default': create services/proxy" in told
    assert 'resources: ["services/proxy"], verbs: [get, create]' in told
    assert "kind: RoleBinding" in caught.value.rule


def test_a_dead_cluster(tmp_path: Path) -> None:
    """The error names context and address, at once where the port is closed."""
    kube.kubeconfig(tmp_path / "config", "http://127.0.0.1:9")
    with pytest.raises(errors.ClusterUnavailable, match=r"context 'lab' \(http://127\.0\.0\.1:9\) cannot be reached"):
        embedfleet.connect("semantic")


def test_a_cluster_that_hangs(api: FakeApiServer) -> None:
    """One that takes connections and never answers is given up after 3 s."""

    async def hang(request: web.Request) -> web.StreamResponse:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    api.fault = hang
    with pytest.raises(errors.ClusterUnavailable, match="does not answer within 3 s"):
        embedfleet.connect("semantic")


def test_something_else_answers(api: FakeApiServer) -> None:
    """HTML at the API server's address, as a login page or a proxy gives it."""

    async def page(request: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>please log in</html>", content_type="text/html")

    api.fault = page
    with pytest.raises(errors.ClusterUnavailable, match="is no API server: HTTP 200, '<html>please log in"):
        embedfleet.connect("semantic")


def test_another_version_of_the_contract(api: FakeApiServer) -> None:
    """The versions of both sides are named; without the CRD that is said."""
    api.versions = ("v2",)
    with pytest.raises(errors.ClusterRefused, match=r"serves embedfleet\.dev/v2, and this SDK speaks .*v1alpha1"):
        embedfleet.connect("semantic")
    api.versions = ()
    with pytest.raises(errors.ClusterRefused, match="CustomResourceDefinition is not installed"):
        embedfleet.connect("semantic")


def test_a_refused_login(api: FakeApiServer) -> None:
    """A 401 that cannot be mended says to log in again."""
    api.tokens = {"other"}
    with pytest.raises(errors.LoginFailed, match="log in again"):
        embedfleet.connect("semantic")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda: web.Response(status=502, text="<html>Bad Gateway</html>"), "HTTP 502: '<html>Bad Gateway"),
        (lambda: web.Response(text="<html>hello</html>"), "does not answer like an embedfleet server"),
        (lambda: kube.status(503, "no endpoints available for service"), "HTTP 503: no endpoints available"),
    ],
)
def test_a_proxy_that_gets_no_further(api: FakeApiServer, answer: object, words: str) -> None:
    """Each route says why not, with the operator's condition where no pod is ready."""
    ready = {"type": "Ready", "status": "False", "reason": "InsufficientGPU", "message": "no node has a free GPU"}
    api.objects = [kube.service("default", "semantic", conditions=[ready], observedGeneration=1)]
    api.pods = []

    async def fault(request: web.Request) -> web.StreamResponse:
        return answer()  # type: ignore[operator,no-any-return]

    api.proxy_fault = fault
    with pytest.raises(errors.ServiceUnavailable) as caught:
        embedfleet.connect("semantic")
    told = str(caught.value)
    for part in (words, "no pod of default/semantic is ready", "InsufficientGPU: no node has a free GPU"):
        assert part in told


def test_a_refusal_of_the_api_server_is_not_the_services(api: FakeApiServer) -> None:
    """A 403 from the proxy that no review foresaw is passed over; only the service's own refusal is final."""

    async def refuse(request: web.Request) -> web.StreamResponse:
        return kube.status(403, "denied by a webhook")

    api.proxy_fault = refuse
    with embedfleet.connect("semantic") as service:
        assert taken(service) == "port-forward"
        assert "the API server answers HTTP 403: denied by a webhook" in str(service.route)


def test_a_namespace_or_context_means_the_cluster(api: FakeApiServer) -> None:
    """A service of this machine is then not looked for, and that is said."""
    with embedfleet.connect("semantic", namespace="default", context="lab") as service:
        assert "not looked for" in str(service.route)
    with pytest.raises(errors.NoCluster, match="no context 'prod'; its contexts: lab"):
        embedfleet.connect("semantic", context="prod")


def test_the_ingress_goes_before_the_proxy(api: FakeApiServer, backend: FakeServer) -> None:
    """The address of the status, when it is one from outside."""
    api.objects = [kube.service("default", "semantic", url=backend.url)]
    with embedfleet.connect("semantic") as service:
        assert taken(service) == "ingress"
    api.objects = [kube.service("default", "semantic", url="http://127.0.0.1:9")]
    with embedfleet.connect("semantic") as service:
        assert taken(service) == "service proxy"
        assert "ingress: no answer from http://127.0.0.1:9" in str(service.route)


def test_the_card_shows_the_route_and_escapes(api: FakeApiServer, backend: FakeServer) -> None:
    """Models, state, pods, route and the routes before it; what a server says is text."""
    backend.models = ("<script>alert(1)</script>",)
    api.objects = [kube.service("default", "semantic", readyReplicas=1)]
    with embedfleet.connect("semantic") as service:
        html = service._repr_html_()
    assert "&lt;script&gt;" in html
    assert "<script>" not in html
    assert "by service proxy" in html
    assert "1 of 1 pods ready, namespace default" in html


def test_in_a_pod_dns_goes_first(api: FakeApiServer, tmp_path: Path) -> None:
    """No token is needed for it; where it fails the API server is asked, by the pod's account."""
    account = tmp_path / "account"
    account.mkdir()
    around = Environment(None, None, tmp_path, pod=environment.Pod(api.url, account))

    async def routes() -> list[tuple[str, str]]:
        return [(one.route, one.words) async for one in walk(Wanted("semantic"), around)]

    told = asyncio.run(routes())
    assert told[2][0] == "cluster DNS"
    assert "http://semantic:8080" in told[2][1]
    assert "automountServiceAccountToken" in told[3][1]
    for name, content in {"token": "t", "namespace": "default"}.items():
        (account / name).write_text(content)
    told = asyncio.run(routes())
    assert "http://semantic.default.svc:8080" in told[2][1]
    assert told[-2][0] == "service proxy"
    assert told[-2][1].startswith(api.url)


def test_all_services_are_listed(api: FakeApiServer) -> None:
    """Those of the cluster by namespace and name; a cluster that cannot be asked is a note, not an error."""
    api.objects.append(kube.service("a", "shop"))
    found = embedfleet.services()
    assert [(one.service, one.url) for one in found] == [("shop", None), ("semantic", None)]
    assert "namespace a" in repr(found)
    assert "<table>" in found._repr_html_()
    api.tokens = {"other"}
    found = embedfleet.services()
    assert len(found) == 0
    assert "log in again" in found.notes[0]


@pytest.mark.requirement("K1")
def test_the_doctor_walks_on(api: FakeApiServer) -> None:
    """Every route has a line, whatever the ones before it gave, and nothing is raised."""
    api.denied = {"create pods/portforward"}
    told = embedfleet.doctor("semantic")
    assert told.ok
    assert [(one.route, one.outcome) for one in told.tried] == [
        ("address", "skipped"), ("local service", "failed"), ("cluster DNS", "skipped"), ("ingress", "skipped"),
        ("service proxy", "ok"), ("port-forward", "failed"),
    ]  # fmt: skip
    assert "verbs: [get, create]" in str(told)
    assert "'semantic' is reached by service proxy" in str(told)
    assert "&#x27;semantic&#x27;" in told._repr_html_()


def test_the_doctor_knows_the_wrong_context(api: FakeApiServer, tmp_path: Path) -> None:
    """Another context of the kubeconfig has the service."""
    tree = json.loads((tmp_path / "config").read_text())
    tree["clusters"].append({"name": "dead", "cluster": {"server": "http://127.0.0.1:9"}})
    tree["contexts"].append({"name": "prod", "context": {"cluster": "dead", "user": "u"}})
    (tmp_path / "config").write_text(json.dumps(tree | {"current-context": "prod"}))
    told = str(embedfleet.doctor("semantic"))
    assert "wrong context? context 'lab' has default/semantic (models semantic, code)" in told
    assert "cannot be reached" in told


def test_a_ca_file_must_be_one(tmp_path: Path) -> None:
    """A file that is missing or holds no certificate is refused by its name."""
    (tmp_path / "ca.pem").write_text("no certificate")
    for name in ("ca.pem", "missing.pem"):
        with pytest.raises(errors.BadInput, match=f"{name}.*must hold certificates"):
            embedfleet.connect(url="https://127.0.0.1:9", ca=tmp_path / name)


_FORKED = """
import os, sys
import numpy as np
import embedfleet
from tests.support.fake_server import vectors
texts = [f"t{i}" for i in range(300)]
service = embedfleet.connect("semantic")
assert service.route.taken.route == sys.argv[1], service.route
assert np.array_equal(service.embed(texts), vectors(texts))
child = os.fork()
if not child:
    assert np.array_equal(service.embed(texts), vectors(texts))
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert np.array_equal(service.embed(texts), vectors(texts))
"""


@pytest.mark.requirement("K1")
@pytest.mark.parametrize(("route", "denied"), [("service proxy", set()), ("port-forward", NO_PROXY)])
def test_a_fork_and_an_exit_are_clean(api: FakeApiServer, route: str, denied: set[str]) -> None:
    """Parent and child both go on, each by connections of its own, and nothing is printed at either's end."""
    api.denied = denied
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _FORKED, route]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.requirement("K1")
@pytest.mark.parametrize("denied", [set(), NO_PROXY])
def test_what_is_given_up_reaches_the_server(api: FakeApiServer, backend: FakeServer, denied: set[str]) -> None:
    """A call that times out is seen by the server as a disconnect, through the API server too."""
    api.denied = denied
    backend.faults = [backend.hang()]
    with embedfleet.connect("semantic") as service:
        with pytest.raises(errors.TimedOut):
            service.embed("a", timeout=0.2)
        assert backend.disconnected.wait(10)
        assert np.array_equal(service.embed(TEXTS), vectors(TEXTS))
