"""The images themselves: who runs in them, what they hold, and which of their layers a change touches."""

import json
import re
import shutil
import tarfile
from pathlib import Path

import pytest

from tests.support.images import Images
from tools.images import building, last_layer, layout
from tools.images.recipes import ROOT, Recipe

SMALL = 8 << 20
"""Bytes; the last layer is what a node fetches for a change of ours."""


def copied(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe on a copy of what its image is made of."""
    folder.mkdir()
    for name in ("constraints.txt", "images", "sdk", "operator", "tools/images"):
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.write_bytes(source.read_bytes())
    return Recipe(recipe.name, recipe.dockerfile, recipe.projects, recipe.variant, folder)


@pytest.mark.requirement("O6")
def test_nobody_is_root_and_nothing_asks_for_a_place(images: Images) -> None:
    """Both images run as a numbered user that is not root, by an entry point of their own, and declare no volume."""
    for built, module in zip(images.all(), ("embedfleet_server", "embedfleet_operator"), strict=True):
        settings = built.image.config["config"]
        assert settings["User"] == "65532:65532"
        assert settings["Entrypoint"] == ["python", "-m", module]
        assert not settings.get("Volumes")
        assert "HOME=/tmp" in settings["Env"]


@pytest.mark.requirement("O6")
def test_labels_tell_what_it_is(images: Images) -> None:
    """Name, version and licence stand in OCI's labels."""
    for built in images.all():
        labels = built.image.config["config"]["Labels"]
        assert labels["org.opencontainers.image.title"] == built.recipe.name
        assert labels["org.opencontainers.image.version"] == built.recipe.version
        assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


@pytest.mark.requirement("O6")
def test_no_index_and_no_secret_is_kept(images: Images) -> None:
    """Neither the configuration nor the history of an image names an address, and no settings of pip lie in it."""
    for built in images.all():
        told = json.dumps(built.image.config)
        assert re.findall(r"https?://[^\"\s]+", told) == []
        files = {path for layer in built.image.layers for path, size in sizes(layer).items() if size}
        assert {path for path in files if path.startswith("run/") or path.endswith(("pip.conf", "99secret"))} == set()


@pytest.mark.requirement("O6")
def test_the_last_layer_holds_our_packages_alone(images: Images) -> None:
    """It is small, owned by root, without our sources elsewhere: our packages, compiled, and the bill of materials."""
    for built in images.all():
        files = layout.files(built.image.last)
        tops = {path.split("/")[3].partition("-")[0] for path in files if path.startswith("opt/embedfleet/code/")}
        assert tops == {"embedfleet", built.recipe.name.replace("-", "_")}
        assert {path for path in files if not path.startswith("opt/embedfleet/code/")} == {last_layer.SBOM}
        assert any(path.endswith("cpython-311.pyc") for path in files)
        assert built.image.last.size < SMALL


@pytest.mark.requirement("O6")
def test_a_change_of_code_leaves_the_other_layers(images: Images, tmp_path: Path) -> None:
    """After a change of our sources only the last layer is another; what holds PyTorch keeps its digest, and the key by
    which it is found. A change of what is pinned gives another key.
    """
    for built in images.all():
        changed = copied(built.recipe, tmp_path / built.recipe.name)
        on = "base"
        assert changed.runtime_key(on) == built.recipe.runtime_key(on)
        source = changed.root / changed.projects[-1] / "src" / changed.name.replace("-", "_") / "__init__.py"
        source.write_text(source.read_text(encoding="utf-8") + "\nCHANGED = 1\n", encoding="utf-8")
        assert changed.runtime_key(on) == built.recipe.runtime_key(on)
        assert changed.code_key() != built.code_key
        layer = building.make_last_layer(changed, built.image, tmp_path / f"{changed.name}.tar")
        newer = built.image.with_last(layer, {})
        assert [one.digest for one in newer.layers[:-1]] == [one.digest for one in built.image.layers[:-1]]
        assert newer.last.digest != built.image.last.digest
        lock = changed.root / "constraints.txt"
        text = lock.read_text(encoding="utf-8")
        lock.write_text(re.sub(r"^ruff==\S+", "ruff==0.0.1", text, flags=re.MULTILINE), encoding="utf-8")
        assert changed.runtime_key(on) == built.recipe.runtime_key(on)  # a tool of ours
        lock.write_text(re.sub(r"^aiohttp==\S+", "aiohttp==0.0.1", text, flags=re.MULTILINE), encoding="utf-8")
        assert changed.runtime_key(on) != built.recipe.runtime_key(on)


@pytest.mark.requirement("O6")
def test_the_layer_made_here_is_the_one_of_the_dockerfile(images: Images, tmp_path: Path) -> None:
    """What `docker build` put into the last layer is what is made without Docker for the same sources, file by file;
    compiled files are the same in name.
    """
    for built in images.all():
        of_docker = layout.load(built.folder).last
        made = building.make_last_layer(built.recipe, built.image, tmp_path / f"{built.recipe.name}.tar")
        theirs, ours = layout.files(of_docker), layout.files(made)
        if (built.folder / "code.key").read_text(encoding="utf-8") != built.code_key:  # built of older sources
            assert last_layer.SBOM in theirs
            continue
        assert theirs.keys() == ours.keys()
        assert {path for path in ours if not path.endswith(".pyc") and ours[path] != theirs[path]} == set()


@pytest.mark.requirement("O6")
def test_the_bill_of_materials_names_every_part(images: Images) -> None:
    """It stands in the image, names our packages and all that constraints.txt pins for them, and the cpu image has no
    CUDA library but the small ones.
    """
    for built in images.all():
        told = json.loads(built.sbom)
        parts = {part["name"].lower().replace("_", "-"): part["version"] for part in told["components"]}
        assert parts["embedfleet"] == built.recipe.version
        assert parts[built.recipe.name] == built.recipe.version
        assert {"python", "libc6", "aiohttp"} <= parts.keys()
    assert "torch" in parts_of(images.server.sbom)
    assert "torch" not in parts_of(images.operator.sbom)
    nvidia = {name for name in parts_of(images.server.sbom) if name.startswith("nvidia")}
    assert nvidia == {"nvidia-cuda-runtime", "nvidia-cuda-cupti"}


def sizes(layer: layout.Layer) -> dict[str, int]:
    """The files of a layer with their bytes; a build leaves empty ones where its mounts were."""
    with tarfile.open(layer.path) as archive:
        return {entry.name.removeprefix("./"): entry.size for entry in archive if entry.isfile()}


def parts_of(bill: bytes) -> set[str]:
    """The names in a bill of materials."""
    return {part["name"] for part in json.loads(bill)["components"]}
