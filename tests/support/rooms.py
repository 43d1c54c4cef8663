"""A namespace of a cluster for end to end tests: services in it, and a pod from which they are asked."""

import json
import secrets
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.grounds import Ground
from tests.support.images import restricted
from tests.support.keepers import JOURNALS, STORE, TINY, Keepers
from tests.support.ledger import Journal, Outcome, parse, summary, troubles
from tests.support.operators import until

ROOT = Path(__file__).resolve().parents[2]
CLIENT = "client"
DRAIN = {"propagationSeconds": 2, "quietSeconds": 1, "maxLameDuckSeconds": 8, "requestSeconds": 10}
"""Short, and above what it takes: rules of kube-proxy follow within a second, and clients ask five times in one."""
PATIENCE = 300
"""Seconds for what takes a few on a quiet machine; what is claimed to be quick has limits of its own."""
_SHIPPED = tuple(f"tests/support/{name}.py" for name in ("fake_hub", "ledger", "steady", "wire_client"))
Plain = dict[str, Any]


@dataclass(frozen=True)
class Room:
    """The namespace, and one service in it."""

    ground: Ground
    keepers: Keepers
    namespace: str
    name: str = "semantic"

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """What kubectl says about the namespace."""
        return self.ground.kubectl("-n", self.namespace, *arguments, stdin=stdin)

    def apply(self, spec: Plain) -> None:
        """The service with this spec, as `kubectl apply` makes it of a file."""
        kind = {"apiVersion": "embedfleet.dev/v1alpha1", "kind": "EmbeddingService"}
        manifest = {**kind, "metadata": {"name": self.name}, "spec": spec}
        self.kubectl("apply", "--validate=strict", "-f", "-", stdin=json.dumps(manifest))

    def patch(self, change: Plain, kind: str = "embed", name: str | None = None) -> None:
        """Merge `change` into the service, or another object."""
        self.kubectl("patch", kind, name or self.name, "--type=merge", "-p", json.dumps(change))

    def get(self, kind: str = "embed", name: str | None = None) -> Plain:
        """One object; the service by default."""
        found: Plain = json.loads(self.kubectl("get", kind, name or self.name, "-o", "json"))
        return found

    def pods(self) -> list[Plain]:
        """The service's pods, those that leave among them."""
        out = self.kubectl("get", "pods", "-l", f"embedfleet.dev/service={self.name}", "-o", "json")
        found: list[Plain] = json.loads(out)["items"]
        return found

    def uids(self) -> set[str]:
        """Of the pods."""
        return {pod["metadata"]["uid"] for pod in self.pods()}

    def condition(self, kind: str = "Ready") -> Plain:
        """A condition of the service, which must be about its newest generation; `KeyError` before there is one."""
        service = self.get()
        found = {one["type"]: one for one in service["status"]["conditions"]}[kind]
        if found["observedGeneration"] != service["metadata"]["generation"]:
            raise KeyError(f"{kind} is about generation {found['observedGeneration']}")
        return dict(found)

    def ready(self, seconds: float = PATIENCE) -> None:
        """Return once the newest spec is served whole, and no pod of another is there."""
        until(lambda: self.condition()["status"] == "True", seconds)
        wanted = self.get()["spec"]["replicas"]
        until(lambda: len(self.pods()) == wanted, seconds)

    def events(self) -> list[Plain]:
        """What was said of the service."""
        found: list[Plain] = json.loads(self.kubectl("get", "events", "-o", "json"))["items"]
        mine = [one for one in found if one["involvedObject"]["kind"] == "EmbeddingService"]
        return [one for one in mine if one["involvedObject"]["name"] == self.name]

    def state(self, pod: str) -> Plain:
        """`/state` of a pod, through the API server."""
        where = f"/api/v1/namespaces/{self.namespace}/pods/{pod}:8081/proxy/state"
        found: Plain = json.loads(self.kubectl("get", "--raw", where))
        return found

    def in_pod(self, *command: str) -> str:
        """What a command in the client pod prints."""
        return self.kubectl("exec", CLIENT, "--", *command)

    def journal(self, prefix: str) -> Journal:
        """Of the pods that ever were, what is about requests whose ids begin so."""
        lines = "".join(self.keepers.run(f"cat {JOURNALS}/* 2>/dev/null || true")).splitlines()
        return parse(line for line in lines if line.split()[1].startswith(f"{prefix}-"))


def spec_of(**others: Any) -> Plain:
    """A service of a small model on CPUs, its weights on a claim: nothing is fetched; pods write journals."""
    source = {"volume": {"claimName": "weights", "path": TINY}}
    spec: Plain = {
        "models": [{"name": "semantic", "source": source, "dtype": "Float32"}],
        "gpu": {"count": 0},
        "drain": DRAIN,
        "batching": {"itemTimeoutSeconds": 10},
        "podTemplate": {"spec": {"containers": [container()], "volumes": [journal_volume()]}},
    }
    return spec | others


def container(**others: Any) -> Plain:
    """What of container `server` differs: it keeps a journal, and asks for little."""
    settings = ["--settings", "/etc/embedfleet/settings", "--host", "0.0.0.0", "--store", "/var/lib/embedfleet/store"]
    name = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    return {
        "name": "server",
        "args": [*settings, "--journal", "/journal/$(POD_NAME)"],
        "env": [name],
        "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"cpu": "1", "memory": "2Gi"}},
        "volumeMounts": [{"name": "journal", "mountPath": "/journal"}],
        **others,
    }


def journal_volume() -> Plain:
    """Where journals outlive their pods."""
    return {"name": "journal", "persistentVolumeClaim": {"claimName": "journals"}}


@contextmanager
def room(ground: Ground, keepers: Keepers, namespace: str | None = None) -> Iterator[Room]:
    """A restricted namespace with the claims `weights` and `journals`, and the client pod; gone afterwards."""
    made = Room(ground, keepers, namespace or f"e2e-{secrets.token_hex(4)}")
    ground.create(restricted(made.namespace))
    claims = [*keepers.claim(made.namespace, "weights", STORE), *keepers.claim(made.namespace, "journals", JOURNALS)]
    ground.create(*claims, _program(made.namespace), _client(made))
    try:
        made.kubectl("wait", f"pod/{CLIENT}", "--for=condition=Ready", f"--timeout={PATIENCE}s")
        yield made
    finally:
        ground.kubectl("delete", "namespace", made.namespace, "--wait=false")


def _program(namespace: str) -> Plain:
    """The clients' program and what it imports."""
    files = {name.replace("/", "."): (ROOT / name).read_text(encoding="utf-8") for name in _SHIPPED}
    metadata = {"name": CLIENT, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": files}


def _client(made: Room) -> Plain:
    paths = [{"key": name.replace("/", "."), "path": name} for name in _SHIPPED]
    security = restricted_container()
    pod = {
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"runAsUser": 65532, "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "client",
                "image": made.ground.images.server.name,
                "command": ["sleep", "infinity"],
                "env": [{"name": "PYTHONPATH", "value": "/program"}],
                "securityContext": security,
                "volumeMounts": [{"name": "program", "mountPath": "/program"}],
            }
        ],
        "volumes": [{"name": "program", "configMap": {"name": CLIENT, "items": paths}}],
    }
    metadata = {"name": CLIENT, "namespace": made.namespace, "labels": {"app": CLIENT}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod}


def restricted_container() -> Plain:
    """The security context that `restricted` asks of a container."""
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True}


@dataclass
class Load:
    """Clients in the client pod while they ask; afterwards what became of each request."""

    prefix: str
    count: int = 0
    seen: dict[str, Outcome] = field(default_factory=dict)

    @property
    def away(self) -> int:
        """Connections that nobody took: of these nothing was sent."""
        return sum(f"{self.prefix}-away-" in number for number in self.seen)

    @property
    def refused(self) -> int:
        """Requests that were sent, and refused."""
        return sum(outcome is Outcome.REFUSED for outcome in self.seen.values()) - self.away

    def passed(self, count: int, seconds: float = PATIENCE) -> None:
        """Return once so many more requests have ended."""
        wanted = self.count + count
        until(lambda: self.count >= wanted, seconds)

    def follow(self, lines: Iterator[str]) -> None:
        """Take in what the clients print."""
        for line in lines:
            told = json.loads(line)
            if isinstance(told, int):
                self.count = told
            else:
                self.seen = {number: Outcome(outcome) for number, outcome in told.items()}

    def __str__(self) -> str:
        return f"{summary(self.seen)}, {self.away:,} of them never sent"


@contextmanager
def load(made: Room, prefix: str, clients: int = 4) -> Iterator[Load]:
    """Steady clients of the service, by DNS, while the block runs; they have had answers when it begins."""
    found = Load(f"{prefix}{secrets.token_hex(2)}")
    host = f"{made.name}.{made.namespace}.svc"
    program = ["python", "-m", "tests.support.steady", host, "8080", found.prefix, str(clients)]
    command = made.ground.command("-n", made.namespace, "exec", "-i", CLIENT, "--", *program)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stderr is not None
        reader = threading.Thread(target=found.follow, args=(iter(running.stdout.readline, ""),))
        reader.start()
        try:
            found.passed(3 * clients)
            yield found
        finally:
            running.stdin.close()
            reader.join(90)
            said = running.stderr.read()
    assert found.seen, f"the clients ended without a word: {said}"


def troubles_of(made: Room, found: Load) -> list[str]:
    """What was lost: clients and journals beside each other. The last answers reach the journals at once."""
    return troubles(found.seen, made.journal(found.prefix))
