"""Images as files: what Docker saves is read, what containerd and Docker take is written."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from tools.images import layout
from tools.images.errors import BuildFailed


def layer(folder: Path, name: str, content: bytes) -> layout.Layer:
    """A layer of one file."""
    root = folder / f"{name}.root"
    root.mkdir()
    (root / name).write_bytes(content)
    return layout.tar(root, folder / f"{name}.tar")


def image(folder: Path) -> layout.Image:
    """Of two layers."""
    layers = layer(folder, "lower", b"l"), layer(folder, "upper", b"u")
    config = {"config": {"User": "65532", "Labels": {"a": "1"}}, "rootfs": {"diff_ids": [one.digest for one in layers]}}
    return layout.Image(config, layers)


@pytest.mark.requirement("O6")
def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    """An archive holds configuration and layers under their digests; reading it gives the same image."""
    made = image(tmp_path)
    archive = made.write(tmp_path / "image.tar", "test.local/x:1")
    (tmp_path / "read").mkdir()
    with archive.open("rb") as stream:
        found = layout.read(stream, tmp_path / "read")
    assert found.config == made.config
    assert [one.digest for one in found.layers] == [one.digest for one in made.layers]
    assert found.file("lower") == b"l"
    with pytest.raises(KeyError):
        found.file("nowhere")


@pytest.mark.requirement("O6")
def test_equal_layers_that_docker_links(tmp_path: Path) -> None:
    """Docker 20 writes a layer that is there already as a link to it; its small files beside are no layers."""
    one = layer(tmp_path, "one", b"1")
    config = json.dumps({"config": {}, "rootfs": {"diff_ids": [one.digest, one.digest]}}).encode()
    told = json.dumps([{"Config": "c.json", "Layers": ["a/layer.tar", "b/layer.tar"]}]).encode()
    saved = io.BytesIO()
    with tarfile.open(fileobj=saved, mode="w") as archive:
        for name, content in {
            "a/VERSION": b"1.0",
            "a/layer.tar": one.path.read_bytes(),
            "c.json": config,
            "manifest.json": told,
        }.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        link = tarfile.TarInfo("b/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, "../a/layer.tar"
        archive.addfile(link)
    saved.seek(0)
    (tmp_path / "read").mkdir()
    assert [found.digest for found in layout.read(saved, tmp_path / "read").layers] == [one.digest, one.digest]


@pytest.mark.requirement("O6")
def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    """An archive without a manifest, and one whose layers are others than its configuration says."""
    empty = io.BytesIO()
    tarfile.open(fileobj=empty, mode="w").close()
    empty.seek(0)
    with pytest.raises(BuildFailed, match="no image archive"):
        layout.read(empty, tmp_path)
    made = image(tmp_path)
    wrong = layout.Image({**made.config, "rootfs": {"diff_ids": ["sha256:0", "sha256:1"]}}, made.layers)
    archive = wrong.write(tmp_path / "wrong.tar", "test.local/x:1")
    (tmp_path / "read").mkdir()
    with archive.open("rb") as stream, pytest.raises(BuildFailed, match="not those of the image"):
        layout.read(stream, tmp_path / "read")


@pytest.mark.requirement("O6")
def test_another_last_layer_leaves_the_others(tmp_path: Path) -> None:
    """New code changes the last layer and what names it, and an archive can hold that layer alone."""
    made = image(tmp_path)
    newer = made.with_last(layer(tmp_path, "newer", b"n"), {"version": "2"})
    assert newer.layers[0] == made.layers[0]
    assert newer.config["rootfs"]["diff_ids"] == [one.digest for one in newer.layers]
    assert newer.config["config"] == {"User": "65532", "Labels": {"a": "1", "version": "2"}}
    thin = newer.write(tmp_path / "thin.tar", "test.local/x:2", [newer.last])
    with tarfile.open(thin) as archive:
        names = archive.getnames()
    assert f"blobs/{newer.last.digest.replace(':', '/')}" in names
    assert f"blobs/{made.layers[0].digest.replace(':', '/')}" not in names


@pytest.mark.requirement("O6")
def test_equal_files_make_an_equal_layer(tmp_path: Path) -> None:
    """A layer has no times, no owner and no order of its own, so that nothing is rebuilt for nothing."""
    for name in ("a", "b"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "file").write_text("x")
    (tmp_path / "b" / "sub" / "file").chmod(0o600)
    first, second = (layout.tar(tmp_path / name, tmp_path / f"{name}.tar") for name in ("a", "b"))
    assert first.digest == second.digest
