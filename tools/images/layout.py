"""An image as files: its configuration and its layers, read from what Docker saves, written as an archive.

The archive is an OCI layout that also has Docker's `manifest.json`, so that `docker load`, `kind load image-archive`
and `ctr images import` all take it.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Self

from tools.images.errors import BuildFailed

_OCI = "application/vnd.oci.image"
_GZIP = b"\x1f\x8b"
PIECE = 1 << 20
"""Bytes that are moved at a time."""
Plain = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer, a tar, compressed or not."""

    path: Path
    digest: str
    """`sha256:…` of the file."""
    size: int
    """Bytes of the file."""
    compressed: bool = False

    @classmethod
    def of(cls, path: Path) -> Self:
        """The layer in a file."""
        with path.open("rb") as file:
            compressed = file.read(2) == _GZIP
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(path, f"sha256:{digest}", path.stat().st_size, compressed)

    def descriptor(self) -> Plain:
        """As a manifest names it."""
        kind = f"{_OCI}.layer.v1.tar{'+gzip' if self.compressed else ''}"
        return {"mediaType": kind, "digest": self.digest, "size": self.size}


@dataclass(frozen=True, slots=True)
class Image:
    """An image: Docker's configuration of it, and its layers from the lowest."""

    config: Plain
    layers: tuple[Layer, ...]

    @property
    def last(self) -> Layer:
        """The topmost layer."""
        return self.layers[-1]

    @property
    def size(self) -> int:
        """Bytes of all layers."""
        return sum(layer.size for layer in self.layers)

    def with_last(self, layer: Layer, labels: Mapping[str, str]) -> "Image":
        """The same with another topmost layer, which is not compressed, and with these labels over its own."""
        settings = self.config["config"]
        rootfs = self.config["rootfs"]
        config = {
            **self.config,
            "config": {**settings, "Labels": {**(settings.get("Labels") or {}), **labels}},
            "rootfs": {**rootfs, "diff_ids": [*rootfs["diff_ids"][:-1], layer.digest]},
        }
        return replace(self, config=config, layers=(*self.layers[:-1], layer))

    def without_last(self) -> "Image":
        """The layers below the topmost, as an image of their own."""
        rootfs = self.config["rootfs"]
        lower = {**self.config, "rootfs": {**rootfs, "diff_ids": rootfs["diff_ids"][:-1]}}
        lower.pop("history", None)  # it would tell of a layer that is not there
        return replace(self, config=lower, layers=self.layers[:-1])

    def file(self, path: str) -> bytes:
        """The contents of a file of the image, without its leading slash. Raises `KeyError` where there is none."""
        for layer in reversed(self.layers):
            with tarfile.open(layer.path) as archive:
                for entry in archive:
                    if entry.name.removeprefix("./") == path and (found := archive.extractfile(entry)):
                        return found.read()
        raise KeyError(path)

    def write(self, target: Path, name: str, layers: Sequence[Layer] | None = None) -> Path:
        """Write the image, called `name` (`host/name:tag`), to the archive `target`.

        With `layers` the archive holds these alone: enough for a containerd that has the others already.
        """
        draft = target.with_name(f"{target.name}.draft")
        with draft.open("wb") as file:
            self.write_to(file, name, layers)
        return draft.rename(target)

    def write_to(self, stream: IO[bytes], name: str, layers: Sequence[Layer] | None = None) -> None:
        """The same to a stream, such as the input of a program."""
        with tarfile.open(fileobj=stream, mode="w|") as archive:
            for path, content in self._documents(name, whole=layers is None).items():
                _add(archive, path, io.BytesIO(content), len(content))
            for layer in {layer.digest: layer for layer in (self.layers if layers is None else layers)}.values():
                with layer.path.open("rb") as file:
                    _add(archive, _blob(layer.digest), file, layer.size)

    def _documents(self, name: str, *, whole: bool) -> dict[str, bytes]:
        config = _json(self.config)
        described = {"mediaType": f"{_OCI}.config.v1+json", "digest": _sha256(config), "size": len(config)}
        layers = [layer.descriptor() for layer in self.layers]
        manifest = _json(_manifest(config=described, layers=layers))
        blobs = {_blob(_sha256(content)): content for content in (config, manifest)}
        made = {"oci-layout": _json({"imageLayoutVersion": "1.0.0"}), "index.json": _json(_index(manifest, name))}
        docker = {
            "Config": _blob(_sha256(config)),
            "RepoTags": [name],
            "Layers": [_blob(layer.digest) for layer in self.layers],
        }
        return {**made, **blobs, **({"manifest.json": _json([docker])} if whole else {})}


def _manifest(**parts: Any) -> Plain:
    return {"schemaVersion": 2, "mediaType": f"{_OCI}.manifest.v1+json", **parts}


def _index(manifest: bytes, name: str) -> Plain:
    described = {"mediaType": f"{_OCI}.manifest.v1+json", "digest": _sha256(manifest), "size": len(manifest)}
    names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    return {"schemaVersion": 2, "manifests": [{**described, "annotations": names}]}


def read(stream: IO[bytes], folder: Path) -> Image:
    """The image in what `docker save` writes to `stream`; its layers are put into `folder`, the rest is kept in mind.

    Raises `BuildFailed` for anything else.
    """
    documents: dict[str, bytes] = {}
    layers: dict[str, Layer] = {}
    links: dict[str, str] = {}
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for entry in archive:
            if entry.issym():  # Docker 20 stores equal layers once
                links[entry.name] = _beside(entry.name, entry.linkname)
            elif entry.isfile() and (content := archive.extractfile(entry)):
                head = content.read(2)
                if head[:1] in (b"{", b"[") or entry.size < tarfile.BLOCKSIZE:  # no tar is so short
                    documents[entry.name] = head + content.read()
                else:
                    layers[entry.name] = _keep(head, content, folder)
    return _assembled(documents, layers, links)


def _assembled(documents: Mapping[str, bytes], layers: Mapping[str, Layer], links: Mapping[str, str]) -> Image:
    if "manifest.json" not in documents:
        raise BuildFailed(f"what was saved is no image archive: it holds {sorted([*documents, *layers])}")
    told = json.loads(documents["manifest.json"])[0]
    found = tuple(layers[links.get(name, name)] for name in told["Layers"])
    config = json.loads(documents[told["Config"]])
    wanted = config["rootfs"]["diff_ids"]
    if [layer.digest for layer in found if not layer.compressed] != wanted and not any(x.compressed for x in found):
        raise BuildFailed(f"the layers that were saved are not those of the image: {wanted}")
    return Image(config, found)


def load(folder: Path) -> Image:
    """The image that `keep` wrote down in `folder`."""
    told = json.loads((folder / "image.json").read_text(encoding="utf-8"))
    layers = [Layer(folder / one["file"], one["digest"], one["size"], one["compressed"]) for one in told["layers"]]
    return Image(told["config"], tuple(layers))


def keep(image: Image, folder: Path) -> None:
    """Write down in `folder`, where its layers lie, what `load` reads."""
    layers = [
        {"file": layer.path.name, "digest": layer.digest, "size": layer.size, "compressed": layer.compressed}
        for layer in image.layers
    ]
    (folder / "image.json").write_text(json.dumps({"config": image.config, "layers": layers}), encoding="utf-8")


def _keep(head: bytes, content: IO[bytes], folder: Path) -> Layer:
    draft, digest, size = folder / "layer.draft", hashlib.sha256(head), len(head)
    with draft.open("wb") as file:
        file.write(head)
        while piece := content.read(PIECE):
            digest.update(piece)
            size += file.write(piece)
    name = digest.hexdigest()
    return Layer(draft.rename(folder / f"{name}.tar"), f"sha256:{name}", size, compressed=head == _GZIP)


def _beside(name: str, target: str) -> str:
    """`target` of a link called `name`: layers lie one folder deep, and a link leads through `..` to another."""
    return target.removeprefix("../") if target.startswith("../") else f"{name.rpartition('/')[0]}/{target}"


def tar(folder: Path, target: Path) -> Layer:
    """A layer of everything below `folder`: owned by root, without times, readable by all; the same for equal files."""
    with tarfile.open(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
            entry.type, entry.mode = (tarfile.DIRTYPE, 0o755) if path.is_dir() else (tarfile.REGTYPE, 0o644)
            content = b"" if path.is_dir() else path.read_bytes()
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return Layer.of(target)


def files(layer: Layer) -> dict[str, bytes]:
    """The regular files of a layer by path."""
    with tarfile.open(layer.path, "r|gz" if layer.compressed else "r|") as archive:
        return {
            entry.name.removeprefix("./"): found.read()
            for entry in archive
            if entry.isfile() and (found := archive.extractfile(entry))
        }


def _add(archive: tarfile.TarFile, path: str, content: IO[bytes], size: int) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = size, 0o644
    archive.addfile(entry, content)


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _json(told: Any) -> bytes:
    return json.dumps(told, sort_keys=True, separators=(",", ":")).encode()
