"""A whole node: containerd with runc, the kubelet, kube-proxy; and CoreDNS beside the first."""

import json
from pathlib import Path
from typing import Any

from tests.cluster import store
from tests.cluster.addresses import CONTROL_PLANE, PODS, node_address, pods_of
from tests.cluster.errors import StartFailed
from tests.cluster.images import PAUSE
from tests.cluster.kubeconfig import CONTEXT
from tests.cluster.machine import PLUGINS
from tests.cluster.plan import Plan
from tests.cluster.processes import Processes

_UNUSED_SNAPSHOTTERS = ("btrfs", "zfs", "aufs", "devmapper")


def start_runtime(plan: Plan, index: int, processes: Processes) -> None:
    """containerd of node `index`; needs no API server, so it starts beside it."""
    folder = plan.node(index)
    plugins = _folder(folder / "network")
    _write(plugins / "10-bridge.conflist", _network(folder, index))
    (folder / "containerd.toml").write_text(_containerd(plan, index, plugins), encoding="utf-8")
    if plan.store:
        store.begin_with(plan.store, folder / "containerd")
    processes.start(f"containerd{index}", "containerd", "--config", folder / "containerd.toml")


def start_node(plan: Plan, index: int, processes: Processes) -> None:
    """The kubelet and kube-proxy of node `index`."""
    folder, name = plan.node(index), f"node{index}"
    (folder / "resolv.conf").write_text("", encoding="utf-8")  # the host's servers are out of reach in here
    processes.start(
        f"kubelet{index}",
        plan.programs / "kubelet",
        f"--config={_write(folder / 'kubelet.json', _kubelet(plan, index))}",
        f"--kubeconfig={plan.kubeconfig(name)}",
        f"--root-dir={folder / 'kubelet'}",
        f"--hostname-override={name}",
        f"--node-ip={node_address(index)}",
    )
    rules = _write(folder / "kube-proxy.json", _proxy(plan, name))
    processes.start(f"kube-proxy{index}", plan.programs / "kube-proxy", f"--config={rules}")


def start_names(plan: Plan, processes: Processes) -> None:
    """CoreDNS, on the first node's address rather than in a pod."""
    corefile = plan.directory / "Corefile"
    corefile.write_text(_COREFILE.format(bind=CONTROL_PLANE, kubeconfig=plan.kubeconfig("coredns"), context=CONTEXT))
    processes.start("coredns", plan.programs / "coredns", "-conf", corefile)


_COREFILE = """.:53 {{
    bind {bind}
    errors
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig} {context}
        pods insecure
        ttl 5
    }}
    cache 5
}}
"""


def _containerd(plan: Plan, index: int, plugins: Path) -> str:
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    unused = ", ".join(f'"io.containerd.snapshotter.v1.{name}"' for name in _UNUSED_SNAPSHOTTERS)
    # restrict_oom_score_adj: root may lack CAP_SYS_RESOURCE, and then a negative score fails every container.
    return f"""version = 2
root = "{plan.node(index) / "containerd"}"
state = "/run/containerd"
disabled_plugins = [{unused}]
[grpc]
  address = "{plan.socket(index)}"
[{cri}]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
[{cri}.cni]
  bin_dir = "{_plugins()}"
  conf_dir = "{plugins}"
[{cri}.containerd]
  default_runtime_name = "runc"
[{cri}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[{cri}.containerd.runtimes.runc.options]
  SystemdCgroup = false
"""


def _plugins() -> Path:
    for folder in PLUGINS:
        if (folder / "bridge").exists():
            return folder
    raise StartFailed(f"no network plugin `bridge` in {' or '.join(map(str, PLUGINS))}")


def _network(folder: Path, index: int) -> dict[str, Any]:
    ranges = {"ranges": [[{"subnet": pods_of(index)}]], "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {"type": "bridge", "bridge": "pods0", "isGateway": True, "ipMasq": False, "hairpinMode": True}
    addresses = {"type": "host-local", **ranges, "dataDir": str(folder / "addresses")}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge | {"ipam": addresses}, ports]}


def _kubelet(plan: Plan, index: int) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{plan.socket(index)}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{plan.group}/node{index}",
        "enforceNodeAllocatable": ["pods"],
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [CONTROL_PLANE],
        "clusterDomain": "cluster.local",
        "resolvConf": str(plan.node(index) / "resolv.conf"),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(plan.keys / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        # The disk is the host's: what others keep on it must not evict pods or collect images that cannot be pulled.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "nodeStatusUpdateFrequency": "5s",
        "syncFrequency": "10s",
        "maxPods": 250,
    }


def _proxy(plan: Plan, name: str) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": str(plan.kubeconfig("kube-proxy"))},
        "clusterCIDR": PODS,
        "hostnameOverride": name,
        # These settings of the kernel belong to the host, and are left as they are.
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "iptables": {"minSyncPeriod": "0s"},
    }


def _write(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return path


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path
