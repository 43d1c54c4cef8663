"""The four programs of a control plane: etcd, API server, controllers, scheduler."""

import json
from dataclasses import dataclass

from tests.cluster.addresses import SERVICES
from tests.cluster.plan import Plan
from tests.cluster.processes import Processes

_QUICK = ("--kube-api-qps=500", "--kube-api-burst=1000", "--leader-elect=false")
"""Their own limits cost seconds at the start: the `default` account came 6 s after the API server with the defaults."""

_STATUS = {"group": "embedfleet.dev", "resources": ["embeddingservices/status"]}
"""What is told of services is recorded whole, so that the tests can judge every word of it."""

_AUDITED = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "RequestResponse", "resources": [_STATUS]}, {"level": "Metadata"}],
}


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """Where the programs listen, on 127.0.0.1.

    Args:
        plan: the cluster they are of.
        advertised: the address of the API server as pods are told it.
        api, etcd, peers: ports.
        reached: the address that the server listens on.
    """

    plan: Plan
    advertised: str
    reached: str
    api: int
    etcd: int
    peers: int

    @property
    def url(self) -> str:
        """Where the API server is, for its own kind."""
        return f"https://127.0.0.1:{self.api}"

    def start(self, processes: Processes) -> None:
        """etcd and the API server, which tries until etcd is there."""
        (self.plan.directory / "audit-policy.json").write_text(json.dumps(_AUDITED), encoding="utf-8")
        processes.start("etcd", *self.etcd_command())
        processes.start("kube-apiserver", *self.api_server_command())

    def start_controllers(self, processes: Processes) -> None:
        """The controllers and the scheduler; the API server must be ready."""
        processes.start("kube-controller-manager", *self.controllers_command())
        processes.start("kube-scheduler", *self._program("kube-scheduler"), self._serves_nothing(), *_QUICK)

    def etcd_command(self) -> list[str]:
        """Nothing is synced to disk: a cluster whose machine crashed is not wanted back."""
        clients, peers = f"http://127.0.0.1:{self.etcd}", f"http://127.0.0.1:{self.peers}"
        return [
            str(self.plan.programs / "etcd"),
            "--name=test",
            f"--data-dir={self.plan.directory / 'etcd'}",
            "--unsafe-no-fsync",
            "--socket-reuse-port",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=test={peers}",
            "--log-level=warn",
        ]

    def api_server_command(self) -> list[str]:
        """As kubeadm starts it, but for the folders; every request goes to the audit log, most without bodies.

        The plug-in for owner references is what OpenShift has on: it asks more of the operator's role.
        """
        plan, keys = self.plan, self.plan.keys
        return [
            str(plan.programs / "kube-apiserver"),
            f"--etcd-servers=http://127.0.0.1:{self.etcd}",
            f"--bind-address={self.reached}",
            f"--secure-port={self.api}",
            "--permit-port-sharing",
            f"--advertise-address={self.advertised}",
            f"--service-cluster-ip-range={SERVICES}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement",
            f"--client-ca-file={keys / 'ca.crt'}",
            f"--tls-cert-file={keys / 'api-server.crt'}",
            f"--tls-private-key-file={keys / 'api-server.key'}",
            f"--kubelet-client-certificate={keys / 'kubelet-client.crt'}",
            f"--kubelet-client-key={keys / 'kubelet-client.key'}",
            "--kubelet-preferred-address-types=InternalIP,Hostname",
            f"--service-account-key-file={keys / 'tokens.pub'}",
            f"--service-account-signing-key-file={keys / 'tokens.key'}",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--audit-policy-file={plan.directory / 'audit-policy.json'}",
            f"--audit-log-path={plan.audit_log}",
            "--audit-log-maxsize=100000",  # MB; at the default of 100 the file would be renamed amid a test
            "--allow-privileged=true",
            "--profiling=false",
            f"--cert-dir={plan.directory / 'api-server'}",
        ]

    def controllers_command(self) -> list[str]:
        """All controllers with one account; a node that is silent for 20 s (instead of 50) is NotReady."""
        keys = self.plan.keys
        return [
            *self._program("kube-controller-manager"),
            self._serves_nothing(),
            *_QUICK,
            f"--root-ca-file={keys / 'ca.crt'}",
            f"--service-account-private-key-file={keys / 'tokens.key'}",
            "--use-service-account-credentials=false",
            f"--cluster-signing-cert-file={keys / 'ca.crt'}",
            f"--cluster-signing-key-file={keys / 'ca.key'}",
            "--allocate-node-cidrs=false",
            "--node-monitor-period=2s",
            "--node-monitor-grace-period=20s",
        ]

    def _program(self, name: str) -> list[str]:
        return [str(self.plan.programs / name), f"--kubeconfig={self.plan.kubeconfig(name)}"]

    def _serves_nothing(self) -> str:
        return "--secure-port=0"
