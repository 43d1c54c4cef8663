"""The operator at work on a real API server, and what a test asks of the cluster meanwhile."""

import asyncio
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self, TypeVar

from embedfleet_operator.configuration import Configuration
from embedfleet_operator.errors import Refused
from embedfleet_operator.reconcile import Outcome, Reconciler
from embedfleet_operator.run import Operator, Wrap
from tests.cluster.cluster import Cluster
from tests.cluster.errors import CommandFailed

Plain = dict[str, Any]
T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "registry.example/embedfleet-server:1"
WRITES = ("create", "patch", "update", "delete")
CHILDREN = "serviceaccounts,configmaps,services,poddisruptionbudgets,networkpolicies,deployments"
_POLL_SECONDS = 0.1
_LABEL = "embedfleet.dev/service"
_CONFLICT = 409
_MOST_PASSES = 20
"""In a row that Kubernetes' own controllers may disturb: each writes a child a few times and is then done."""


def until(found: Callable[[], T | None], seconds: float = 30, pause: float = _POLL_SECONDS) -> T:
    """What `found` gives once it is something; `AssertionError` with the last answer after `seconds`.

    It is asked every `pause` seconds: less often where an answer costs much.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            last: Any = found()
        except (CommandFailed, KeyError, IndexError) as error:
            last, told = None, error
        else:
            told = last
        if last:
            return last  # type: ignore[no-any-return]  # it is `found`'s
        assert time.monotonic() < end, f"not within {seconds} s: {told!r}"
        time.sleep(pause)


@dataclass(frozen=True)
class Place:
    """A namespace of a cluster, and one service in it."""

    cluster: Cluster
    namespace: str
    name: str = "semantic"

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """What kubectl says about the namespace."""
        return self.cluster.kubectl("-n", self.namespace, *arguments, stdin=stdin)

    def apply(self, **spec: Any) -> Plain:
        """The service with this spec; some of it is given."""
        manifest = manifest_of(self.name, **spec)
        out = self.kubectl("apply", "--validate=strict", "-o", "json", "-f", "-", stdin=json.dumps(manifest))
        made: Plain = json.loads(out)
        return made

    def get(self, kind: str, name: str | None = None) -> Plain:
        """One object."""
        found: Plain = json.loads(self.kubectl("get", kind, name or self.name, "-o", "json", "--show-managed-fields"))
        return found

    def all(self, kinds: str) -> list[Plain]:
        """The objects of these types that have the service's label."""
        out = self.kubectl("get", kinds, "-l", f"{_LABEL}={self.name}", "-o", "json", "--show-managed-fields")
        found: list[Plain] = json.loads(out)["items"]
        return found

    def patch(self, kind: str, name: str, change: Plain, *more: str) -> None:
        """Merge `change` into an object, as a user would."""
        self.kubectl("patch", kind, name, "--type=merge", "-p", json.dumps(change), *more)

    def condition(self, kind: str = "Ready") -> Plain:
        """A condition of the service."""
        return next(one for one in self.get("embed")["status"]["conditions"] if one["type"] == kind)

    def settled(self, seconds: float = 30) -> Plain:
        """The service once its status is about its newest spec and its Deployment's pods are there."""
        return until(self._settled, seconds)

    def _settled(self) -> Plain | None:
        service = self.get("embed")
        deployment = self.get("deployment")
        seen = deployment["status"].get("observedGeneration") == deployment["metadata"]["generation"]
        pods = deployment["status"].get("updatedReplicas", 0) == deployment["spec"]["replicas"]
        told = service["status"].get("observedGeneration") == service["metadata"]["generation"]
        counted = service["status"].get("replicas", 0) == len(self.pods())
        ready = next(one for one in service["status"]["conditions"] if one["type"] == "Ready")
        return service if seen and pods and told and counted and ready["reason"] != "Applying" else None

    def pods(self) -> list[Plain]:
        """The service's pods that stay."""
        return [one for one in self.all("pods") if "deletionTimestamp" not in one["metadata"]]

    def all_events(self) -> list[Plain]:
        """What was said of the service."""
        found: list[Plain] = json.loads(self.kubectl("get", "events.events.k8s.io", "-o", "json"))["items"]
        return [one for one in found if one["regarding"]["kind"] == "EmbeddingService"]

    def make_ready(self, pod: str, address: str) -> None:
        """Say of a pod what a scheduler and a kubelet would once its server takes requests; for some 40 s, after which
        Kubernetes clears away pods of nodes that are not there.
        """
        target = {"apiVersion": "v1", "kind": "Node", "name": "nowhere"}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod}, "target": target}
        where = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/binding"
        self.kubectl("create", "--raw", where, "-f", "-", stdin=json.dumps(binding))
        state = {"name": "server", "ready": True, "started": True, "state": {"running": {}}, "restartCount": 0}
        whole = {**state, "image": IMAGE, "imageID": "", "lastState": {}}
        conditions = [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}]
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": conditions}
        self.patch("pod", pod, {"status": {**status, "containerStatuses": [whole]}}, "--subresource=status")

    def written_by(self, user: str) -> list[Plain]:
        """Every write of `user` that the API server took, in order, but for those to Leases."""
        return [
            one
            for one in audited(self.cluster, user)
            if one["verb"] in WRITES
            and one["objectRef"]["resource"] != "leases"
            and one["responseStatus"]["code"] < 300
        ]

    def looks(self, user: str) -> int:
        """How often `user` has listed the services by itself (kopf does so once, as it begins to watch)."""
        about = [
            one for one in audited(self.cluster, user) if one.get("objectRef", {}).get("namespace") == self.namespace
        ]
        found = [one for one in about if one["objectRef"]["resource"] == "embeddingservices"]
        return sum(one["verb"] == "list" for one in found)


def manifest_of(name: str, **spec: Any) -> Plain:
    """An EmbeddingService of one model on CPUs, two replicas."""
    models = [{"name": "m", "source": {"path": "/models/m"}}]
    whole = {"models": models, "gpu": {"count": 0}, "replicas": 2, "image": IMAGE, **spec}
    return {
        "apiVersion": "embedfleet.dev/v1alpha1",
        "kind": "EmbeddingService",
        "metadata": {"name": name},
        "spec": whole,
    }


def audited(cluster: Cluster, user: str) -> list[Plain]:
    """Every finished request of `user`, from the API server's audit log."""
    lines = cluster.audit_log.read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines if f'"{user}"' in line]
    return [one for one in found if one["user"]["username"] == user and one["stage"] == "ResponseComplete"]


class Working:
    """An operator at work in a thread of its own; `user` is its name in the audit log."""

    def __init__(self, configuration: Configuration, user: str, wrap: Wrap, proxy: str | None = None) -> None:
        self.user = user
        self.operator = Operator(configuration, wrap, proxy)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=user)

    def start(self) -> None:
        """Let it work."""
        self._thread.start()

    def stop(self) -> None:
        """End it; raises what it ended by, if that was an error."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout=30)
        assert not self._thread.is_alive(), "the operator does not end"
        self._loop.close()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self.operator.run(self._stop))
        except BaseException as error:  # noqa: BLE001  # the test's thread raises it
            self._error = error


def configuration_of(place: Place, kubeconfig: Path, user: str, **others: Any) -> Configuration:
    """An operator of the place's namespace alone, without a port, with a Lease in that namespace."""
    made = Configuration(
        identity=user,
        kubeconfig=kubeconfig,
        namespaces=(place.namespace,),
        lease_namespace=place.namespace,
        observe_port=None,
    )
    return replace(made, **others)


async def whole_pass(reconciler: Reconciler, namespace: str, name: str) -> Outcome:
    """A pass to its end, as the operator's loop comes to one: anew when what it read was changed before it wrote.

    Kubernetes' own controllers write children too, whenever they please. Raises what else a pass raises.
    """
    for _ in range(_MOST_PASSES):
        try:
            return await reconciler.reconcile(namespace, name, datetime.now(UTC))
        except Refused as refusal:
            if refusal.code != _CONFLICT:
                raise
            last = refusal
    raise AssertionError(f"{_MOST_PASSES} passes in a row met a conflict") from last


@contextmanager
def working(place: Place, wrap: Wrap = lambda transport: transport, **others: Any) -> Iterator[Working]:
    """An operator inside, as an administrator of its own name unless `kubeconfig` and `user` say otherwise.

    `proxy` is how it asks pods (see `Pods`), the rest is of its `Configuration`.
    """
    user = others.pop("user", f"operator-{secrets.token_hex(4)}")
    proxy = others.pop("proxy", None)
    kubeconfig = others.pop("kubeconfig", None) or place.cluster.kubeconfig_for(user, ["system:masters"])
    made = Working(configuration_of(place, kubeconfig, user, **others), user, wrap, proxy)
    made.start()
    try:
        yield made
    finally:
        made.stop()


class StateServer:
    """The observation port of a pod that is not there: answers `/state` with `answer`, at an address of its own."""

    def __init__(self) -> None:
        self.answer: Plain = {}
        self.address = "127." + ".".join(str(1 + byte % 254) for byte in secrets.token_bytes(3))
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(outer.answer).encode()
                self.send_response(200 if self.path == "/state" else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer((self.address, 8081), Handler)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,)).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
