"""The files of a kind node, of Debian's packages, kind's own base files and the programs that were built here.

kind publishes such an image; this one is for machines that no registry is in reach of. What the Dockerfile in kind's
`images/base` does is done here to a folder, without a container.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.cluster.errors import BuildFailed
from tools.images import base
from tools.images.errors import ImagesError

PACKAGES = (
    "ca-certificates",
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "dbus",
    "ethtool",
    "iproute2",
    "iptables",
    "jq",
    "kmod",
    "mount",
    "nftables",
    "procps",
    "runc",
    "systemd",
    "systemd-sysv",
)
"""What runs on a node; kind's own image has tools for network storage beside, which nothing here mounts."""

PODS = "10.244.0.0/16"  # kind's default
_UNITS = ("kubelet.service", "containerd.service", "undo-mount-hacks.service")
_PROGRAMS = ("kubeadm", "kubectl", "kubelet")
_WANTED_BY_NOBODY = (
    "etc/systemd/system/*.wants/*",
    "lib/systemd/system/basic.target.wants/*",
    "lib/systemd/system/local-fs.target.wants/*",
    "lib/systemd/system/multi-user.target.wants/*",
    "lib/systemd/system/sockets.target.wants/*initctl*",
    "lib/systemd/system/sockets.target.wants/*udev*",
    "lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service",
)
_LEFT = (
    "usr/share/doc/*",
    "usr/share/locale/*",
    "usr/share/man/*",
    "var/cache/apt/*.bin",
    "var/cache/apt/archives/*.deb",
    "var/lib/apt/lists/*_*",
    "var/log/*.log",
)
_BRIDGE = {
    "type": "bridge",
    "bridge": "cni0",
    "isGateway": True,
    "ipMasq": True,
    "hairpinMode": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]},
}
_NETWORK = {
    "cniVersion": "0.4.0",
    "name": "pods",
    "plugins": [_BRIDGE, {"type": "portmap", "capabilities": {"portMappings": True}}],
}


def make(root: Path, programs: Path, kind_source: Path, version: str, pause: str) -> None:
    """Everything, in the new folder `root`; root only.

    `version` is that of Kubernetes, `pause` the name of the image that holds a pod's namespaces. Raises `BuildFailed`.
    """
    _debian(root)
    _kinds_own(root, kind_source / "images" / "base" / "files")
    _containerd(root, pause)
    _kubernetes(root, programs, version)
    _services(root)
    for pattern in _LEFT:
        for left in root.glob(pattern):
            _remove(left)


def _debian(root: Path) -> None:
    try:
        codename = base.release()
        targets = subprocess.run(_TARGETS, capture_output=True, text=True, check=False).stdout
        where = base.mirror(targets, codename)
    except ImagesError as failure:
        raise BuildFailed(str(failure)) from failure
    # debootstrap mounts /proc below its folder: none of it outlives the namespace.
    options = ["--variant=minbase", f"--include={','.join(PACKAGES)}"]
    _run("unshare", "--mount", "debootstrap", *options, codename, str(root), where)


_TARGETS = ("apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)", "Created-By: Packages")


def _kinds_own(root: Path, files: Path) -> None:
    """With the rights that kind's Dockerfile gives them: Go's module cache keeps none."""
    for file in files.rglob("*"):
        inside = file.relative_to(files)
        if not file.is_file() or inside.parts[0] == "LICENSES":
            continue
        target = root / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        target.chmod(0o755 if target.parent.name == "bin" else 0o644)


def _containerd(root: Path, pause: str) -> None:
    """Debian's, where kind's service looks for it, with settings that its version and this machine's root take."""
    for name in ("containerd", "containerd-shim-runc-v2", "ctr"):
        (root / "usr/local/bin" / name).symlink_to(f"/usr/bin/{name}")
    settings = root / "etc/containerd/config.toml"
    settings.write_text(containerd_settings(settings.read_text(encoding="utf-8"), pause), encoding="utf-8")
    plugins, networks = root / "opt/cni/bin", root / "etc/cni/net.d"
    networks.mkdir(parents=True, exist_ok=True)
    shutil.copytree(root / "usr/lib/cni", plugins, dirs_exist_ok=True)
    (networks / "10-pods.conflist").write_text(json.dumps(_NETWORK), encoding="utf-8")


def containerd_settings(written: str, pause: str) -> str:
    """kind's settings of containerd: with our pause, without the hook that hides the machine's product name, and
    without asking for what root may lack.
    """
    lines = [line for line in written.splitlines() if "base_runtime_spec" not in line]
    changed = {"sandbox_image": f'sandbox_image = "{pause}"', "restrict_oom_score_adj": "restrict_oom_score_adj = true"}
    return "\n".join(_changed(line, changed) for line in lines) + "\n"


def _changed(line: str, changed: dict[str, str]) -> str:
    key = line.strip().partition(" ")[0]
    return f"  {changed[key]}" if key in changed else line


def _kubernetes(root: Path, programs: Path, version: str) -> None:
    shutil.copyfile(programs / "kubebox", root / "usr/local/bin/kubebox")
    (root / "usr/local/bin/kubebox").chmod(0o755)
    for name in _PROGRAMS:
        (root / "usr/bin" / name).symlink_to("/usr/local/bin/kubebox")
    (root / "etc/kubernetes/manifests").mkdir(parents=True)
    (root / "kind/version").write_text(version, encoding="utf-8")


def _services(root: Path) -> None:
    """Those of a node alone, as in kind's Dockerfile."""
    for pattern in _WANTED_BY_NOBODY:
        for link in root.glob(pattern):
            link.unlink()
    with (root / "etc/systemd/journald.conf").open("a", encoding="utf-8") as settings:
        settings.write("ReadKMsg=no\n")
    _run("chroot", str(root), "systemctl", "enable", *_UNITS)
    _run("chroot", str(root), "systemctl", "mask", "systemd-binfmt.service")  # it would register with the kernel


def _remove(left: Path) -> None:
    if left.is_dir() and not left.is_symlink():
        shutil.rmtree(left)
    else:
        left.unlink()


def _run(*command: str) -> None:
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    if done.returncode != 0:
        raise BuildFailed(f"{' '.join(command[:4])} … ended with status {done.returncode}")
