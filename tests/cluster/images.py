"""Container images without a registry or a daemon: one layer in the archive that `docker save` writes."""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

PAUSE = "test.local/pause:1"
"""What holds the namespaces of every pod; it may also be a pod's container, and then logs one line."""

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def write_image(
    target: Path,
    name: str,
    files: Mapping[str, Path] | None = None,
    *,
    links: Mapping[str, str] | None = None,
    folders: Sequence[str] = (),
    entrypoint: Sequence[str] = (),
) -> Path:
    """Write an image called `name` (`host/name:tag`) to the archive `target`, for `Cluster.load_image`.

    `files` are paths in the image and what is copied there, executable by all; `links` are symbolic ones and where they
    point; `folders` are empty ones, to mount on. A pod must ask for it with a tag other than `latest`, or with
    `imagePullPolicy: Never`.
    """
    layer = _layer(files or {}, links or {}, folders)
    parts = {"layer.tar": layer, "config.json": _config(layer, entrypoint)}
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(target, "w") as archive:
        for part, content in (parts | {"manifest.json": json.dumps(manifest).encode()}).items():
            entry = tarfile.TarInfo(part)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return target


def _layer(files: Mapping[str, Path], links: Mapping[str, str], folders: Sequence[str]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as layer:
        for folder in folders:
            layer.addfile(_entry(folder, tarfile.DIRTYPE))
        for path, points_to in links.items():
            link = _entry(path, tarfile.SYMTYPE)
            link.linkname = points_to
            layer.addfile(link)
        for path, source in files.items():
            entry, content = _entry(path, tarfile.REGTYPE), source.read_bytes()
            entry.size = len(content)
            layer.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def _entry(path: str, kind: bytes) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path.lstrip("/"))
    entry.type, entry.mode = kind, 0o755
    return entry


def _config(layer: bytes, entrypoint: Sequence[str]) -> bytes:
    told = {
        "architecture": _ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": {"Entrypoint": list(entrypoint), "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created_by": "tests/cluster/images.py"}],
    }
    return json.dumps(told).encode()
