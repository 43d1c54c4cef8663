"""A real Kubernetes cluster for tests, thrown away afterwards.

    with Cluster() as cluster:                  # etcd, API server, controllers, scheduler: no root, no nodes
        cluster.kubectl("apply", "-f", "crds/")
    with Cluster(nodes=1) as cluster:           # pods run: containerd, kubelet, kube-proxy, CoreDNS; root
    with Cluster(hollow=100) as cluster:        # pods become Ready and nothing runs: for numbers

Several can run at once. Each ends with the process that started it, even when that one is killed.
"""

import datetime as dt
import json
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.cluster import commands, kubeconfig, machine
from tests.cluster.build import binaries
from tests.cluster.certificates import Authority
from tests.cluster.errors import StartFailed
from tests.cluster.keeper import READY
from tests.cluster.leftovers import clean
from tests.cluster.plan import Plan
from tests.cluster.processes import tail

_END_SECONDS = 60
Say = Callable[[str], None]


class Cluster:
    """A cluster; as a context manager it runs inside, and nothing is left of it afterwards.

    Args:
        nodes: whole nodes, named node1 and on, at most 3.
        hollow: nodes that kwok pretends, named hollow1 and on, each of 8 GPUs.
        directory: where its files are to lie; must not exist yet. A new temporary one by default.
        tied: it ends with this process; else it runs until `down.stop(directory)`.
        store: images that the nodes have from the start, as `store.make` unpacked them.
        say: is told of what is up, with the seconds since the start.
    """

    def __init__(
        self,
        nodes: int = 0,
        hollow: int = 0,
        *,
        directory: Path | None = None,
        tied: bool = True,
        store: Path | None = None,
        say: Say = lambda _: None,
    ) -> None:
        where = directory or Path(tempfile.gettempdir()) / f"embedfleet-cluster-{secrets.token_hex(4)}"
        self._plan = Plan(where.resolve(), Path(), nodes, hollow, tied, store)
        self._say = say
        self._keeper: subprocess.Popen[str] | None = None

    def start(self) -> Self:
        """Bring it up; what is missing of its programs is built first, of Debian's packages installed.

        Raises `MachineLacks`, `BuildFailed`, `StartFailed`, and `FileExistsError` for the directory.
        """
        if self._plan.nodes:
            machine.provide()
        self._plan = plan = replace(self._plan, programs=binaries(*(["kwok"] if self._plan.hollow else [])))
        plan.directory.mkdir(mode=0o700, parents=True)
        for folder in (plan.logs, plan.keys):
            folder.mkdir()
        plan.save()
        self._keeper = _keeper(plan)
        self._follow(self._keeper)
        return self

    def _follow(self, keeper: subprocess.Popen[str]) -> None:
        assert keeper.stdout is not None
        assert keeper.stderr is not None
        with keeper.stdout, keeper.stderr:
            try:
                for line in map(str.rstrip, keeper.stdout):
                    if line == READY:
                        return
                    self._say(line)
            except BaseException:  # Ctrl-C: what was begun is not left behind
                self.close()
                raise
            reason = keeper.stderr.read().strip()
        self.close()
        raise StartFailed(f"the cluster in {self.directory} did not come up: {reason}")

    def close(self) -> None:
        """End it and remove all of it; does nothing when it is not there."""
        if self._keeper is None:
            return
        self._keeper.terminate()
        self._keeper.wait(_END_SECONDS)
        if self._keeper.stdin is not None:
            self._keeper.stdin.close()
        self._keeper = None
        clean(self.directory)  # what the keeper could not remove since it was killed

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def directory(self) -> Path:
        """Where its files lie."""
        return self._plan.directory

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of an administrator."""
        return self._plan.admin

    @property
    def audit_log(self) -> Path:
        """Every request to the API server with its user, verb and object: one JSON object a line, in order."""
        return self._plan.audit_log

    @property
    def programs(self) -> Path:
        """The folder of kubectl and its kin."""
        return self._plan.programs

    @property
    def api_url(self) -> str:
        """The API server's URL, for this host."""
        config = json.loads(self.kubeconfig.read_text(encoding="utf-8"))
        url: str = config["clusters"][0]["cluster"]["server"]
        return url

    def kubectl(self, *arguments: str, stdin: str | None = None, kubeconfig: Path | None = None) -> str:
        """What `kubectl ARGUMENTS` printed, as the administrator or the one of `kubeconfig`. Raises `CommandFailed`."""
        return commands.kubectl(self._plan, *arguments, stdin=stdin, kubeconfig=kubeconfig)

    def load_image(self, archive: Path) -> None:
        """Give the image in `archive`, as `docker save` writes it, to every whole node. Raises `CommandFailed`."""
        if not self._plan.nodes:
            raise ValueError("a cluster without whole nodes takes no images: Cluster(nodes=1)")
        commands.import_image(self._plan, archive)

    def pretend_gpus(self, node: str, count: int, resource: str = "nvidia.com/gpu") -> None:
        """Let the whole node `node` offer `count` of `resource`; returns when they can be asked for."""
        capacity = json.dumps({"status": {"capacity": {resource: str(count)}}})
        self.kubectl("patch", "node", node, "--subresource=status", "--type=merge", "-p", capacity)
        offered = "{.status.allocatable." + resource.replace(".", r"\.") + "}"
        self.kubectl("wait", f"node/{node}", f"--for=jsonpath={offered}={count}", "--timeout=60s")

    def kubeconfig_for(self, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig of `user` in `groups`, by a client certificate; what they may do is up to the roles."""
        authority = Authority.read(self._plan.keys)
        pair = authority.issue(user, groups, now=dt.datetime.now(dt.UTC))
        config = kubeconfig.for_certificate(self.api_url, authority.pair.certificate, pair)
        return kubeconfig.write(self._new_kubeconfig(), config)

    def kubeconfig_for_account(self, namespace: str, account: str) -> Path:
        """A kubeconfig of the service account `account`, by a token that is good for an hour."""
        token = self.kubectl("create", "token", account, "--namespace", namespace).strip()
        authority = Authority.read(self._plan.keys)
        config = kubeconfig.for_token(self.api_url, authority.pair.certificate, token)
        return kubeconfig.write(self._new_kubeconfig(), config)

    def logs(self, lines: int = 25) -> str:
        """The last `lines` of what each program wrote, for a test that failed."""
        return "\n".join(tail(log, lines) for log in sorted(self._plan.logs.glob("*.log")))

    def _new_kubeconfig(self) -> Path:
        return self._plan.keys / f"{secrets.token_hex(4)}.kubeconfig"


def _keeper(plan: Plan) -> subprocess.Popen[str]:
    """Its standard input is the lifeline: the kernel closes it when this process ends, whatever it ends by."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.cluster.keeper", str(plan.directory)],
        cwd=machine.ROOT,
        stdin=subprocess.PIPE if plan.tied else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is the starter's to handle
    )
