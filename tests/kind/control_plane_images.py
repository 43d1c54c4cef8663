"""What kubeadm runs as pods, under the names that it asks for: one layer, cut out of the node's files.

The programs of the control plane are the one binary that the node has too; kube-proxy calls iptables and its kin.
"""

import platform
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

from tests.cluster.errors import BuildFailed
from tools.images import layout

_CALLED = ("usr/sbin/xtables-nft-multi", "usr/sbin/nft", "usr/sbin/conntrack")
_MODULES = "usr/lib/*/xtables/*.so"
_BOX = "usr/local/bin/kubebox"
_BOX_LINKS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler")
_TABLE_LINKS = tuple(f"ip{six}tables{what}" for six in ("", "6") for what in ("", "-save", "-restore"))
_MERGED = ("bin", "lib", "lib64", "sbin")  # of Debian: each is a link into /usr
_FOLDERS = ("dev", "etc", "proc", "run", "sys", "var", *(f"usr/{name}" for name in _MERGED))
_PATH = "PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""What images call the processors that `uname` knows by another name."""
Plain = dict[str, Any]


def asked_for(programs: Path, version: str) -> list[str]:
    """The names of the images that kubeadm of this version asks for. Raises `BuildFailed`."""
    command = [str(programs / "kubeadm"), "config", "images", "list", "--kubernetes-version", version]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildFailed(f"kubeadm config images list: status {done.returncode}: {done.stderr.strip()}")
    return done.stdout.split()


def pause_of(names: Iterable[str]) -> str:
    """The one among them that holds a pod's namespaces."""
    (found,) = [name for name in names if base_name(name) == "pause"]
    return found


def base_name(name: str) -> str:
    """`pause` of `registry.k8s.io/pause:3.10.1`."""
    return name.rpartition("/")[2].partition(":")[0]


def entrypoint(name: str) -> list[str]:
    """What an image runs of itself; kubeadm names the program of the others."""
    return {"coredns": ["/coredns"], "pause": ["/pause"]}.get(base_name(name), [])


def write_layer(root: Path, programs: Path, target: Path) -> layout.Layer:
    """Write the layer, of the node's files in `root`, to `target`. Raises `BuildFailed`."""
    with tarfile.open(target, "w") as archive:
        for folder in (*_FOLDERS, "tmp"):
            archive.addfile(_entry(folder, tarfile.DIRTYPE, mode=0o1777 if folder == "tmp" else 0o755))
        for name in _MERGED:
            _link(archive, name, f"usr/{name}")
        for path in sorted(set(_files(root))):
            _file(archive, path, real(root, path))
        for name in _TABLE_LINKS:
            _link(archive, f"usr/sbin/{name}", "xtables-nft-multi")
        for name in _BOX_LINKS:
            _link(archive, f"usr/local/bin/{name}", "kubebox")
        _link(archive, "coredns", _BOX)
        _file(archive, "pause", programs / "pause")
    return layout.Layer.of(target)


def archives(layer: layout.Layer, names: Iterable[str]) -> list[Callable[[IO[bytes]], None]]:
    """What writes the image of each name as an archive; the layer is in the first, and the others go without it."""
    made = [(name, layout.Image(_config(name, layer), (layer,))) for name in names]
    return [partial(_write, image, name, whole=index == 0) for index, (name, image) in enumerate(made)]


def _write(image: layout.Image, name: str, stream: IO[bytes], *, whole: bool) -> None:
    image.write_to(stream, name, None if whole else [])


def _config(name: str, layer: layout.Layer) -> Plain:
    return {
        "architecture": ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": {"Entrypoint": entrypoint(name), "Env": [_PATH]},
        "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
    }


def _files(root: Path) -> Iterator[str]:
    """What kube-proxy calls, and the libraries of that; paths below `root` that are no links into /usr."""
    called = [*_CALLED, *(str(found.relative_to(root)) for found in root.glob(_MODULES))]
    for path in called:
        yield path
        told = subprocess.run(["chroot", str(root), "ldd", f"/{path}"], capture_output=True, text=True, check=False)
        if told.returncode != 0:
            raise BuildFailed(f"ldd of {path}: {told.stdout}{told.stderr}")
        yield from map(merged, libraries(told.stdout))
    yield _BOX


def libraries(told: str) -> list[str]:
    """The files that `ldd` tells of."""
    words = [word for line in told.splitlines() for word in line.split()]
    return [word for word in words if word.startswith("/")]


def merged(path: str) -> str:
    """`usr/lib/x` for `/lib/x`: where the file is, without a leading slash."""
    inside = path.lstrip("/")
    return f"usr/{inside}" if inside.partition("/")[0] in _MERGED else inside


def real(root: Path, path: str) -> Path:
    """The file that `path` below `root` leads to by links, which are those of a system that has its root there."""
    found = root / path
    while found.is_symlink():
        target = found.readlink()
        found = root / merged(str(target)) if target.is_absolute() else found.parent / target
    return found


def _entry(path: str, kind: bytes, mode: int = 0o755) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode = kind, mode
    return entry


def _link(archive: tarfile.TarFile, path: str, points_to: str) -> None:
    entry = _entry(path, tarfile.SYMTYPE)
    entry.linkname = points_to
    archive.addfile(entry)


def _file(archive: tarfile.TarFile, path: str, source: Path) -> None:
    entry = _entry(path, tarfile.REGTYPE)
    entry.size = source.stat().st_size
    with source.open("rb") as content:
        archive.addfile(entry, content)
