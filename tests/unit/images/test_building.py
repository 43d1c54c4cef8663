"""What is taken from the cache, and what is put there."""

import os
import subprocess
from pathlib import Path

import pytest

from tools.images import base, building, daemon, layout
from tools.images.errors import CannotBuild
from tools.images.recipes import Recipe


def project(folder: Path) -> Recipe:
    """A recipe of one small project, whose lower layers are in the cache."""
    (folder / "src" / "ours").mkdir(parents=True)
    (folder / "src" / "ours" / "__init__.py").write_text("X = 1\n")
    (folder / "README.md").write_text("ours\n")
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "ours"\nversion = "1.0"\nreadme = "README.md"\n'
        '[tool.hatch.build.targets.wheel]\npackages = ["src/ours"]\n'
    )
    for name in ("constraints.txt", "Dockerfile"):
        (folder / name).write_text("")
    for name in ("stubs.py", "sbom.py", "unpack.py"):
        (folder / "tools" / "images").mkdir(parents=True, exist_ok=True)
        (folder / "tools" / "images" / name).write_text("")
    return Recipe("ours", Path("Dockerfile"), (Path(),), None, folder)


def built(recipe: Recipe, folder: Path) -> Path:
    """As a Dockerfile would have left it: dependencies below, code of an older day above."""
    folder.mkdir(parents=True)
    for name, content in (("dependencies.cdx.json", '{"components": []}'), ("code/old.py", "")):
        file = folder / f"{Path(name).name}.root" / "opt" / "embedfleet" / name
        file.parent.mkdir(parents=True)
        file.write_text(content)
    layers = tuple(
        layout.tar(folder / f"{name}.root", folder / f"{name}.tar") for name in ("dependencies.cdx.json", "old.py")
    )
    config = {"config": {}, "rootfs": {"diff_ids": [layer.digest for layer in layers]}}
    layout.keep(layout.Image(config, layers), folder)
    (folder / "code.key").write_text("older")
    return folder


@pytest.mark.requirement("O6")
def test_new_code_needs_no_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the lower layers in the cache a new last layer is made once, without any engine, and taken afterwards."""
    monkeypatch.setattr(building, "running", lambda: None)
    monkeypatch.setattr(base, "release", lambda: "bookworm")
    recipe = project(tmp_path / "project")
    on = base.name("bookworm")
    folder = built(recipe, tmp_path / "cache" / f"ours-{recipe.runtime_key(on)}")
    said: list[str] = []
    (first,) = building.build([recipe], tmp_path / "cache", said.append)
    (again,) = building.build([recipe], tmp_path / "cache", said.append)
    assert len(said) == 1
    assert again == first
    assert first.image.layers[0] == layout.load(folder).layers[0]
    files = layout.files(first.image.last)
    assert {"opt/embedfleet/code/ours/__init__.py", "opt/embedfleet/sbom.cdx.json"} <= files.keys()
    assert b"pkg:pypi/ours@1.0" in first.sbom


@pytest.mark.requirement("O6")
def test_code_that_changes_gets_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod template that names the image of newer code is another one."""
    monkeypatch.setattr(building, "running", lambda: None)
    monkeypatch.setattr(base, "release", lambda: "bookworm")
    recipe = project(tmp_path / "project")
    built(recipe, tmp_path / "cache" / f"ours-{recipe.runtime_key(base.name('bookworm'))}")
    (before,) = building.build([recipe], tmp_path / "cache", lambda _: None)
    (tmp_path / "project" / "src" / "ours" / "__init__.py").write_text("X = 2\n")
    (after,) = building.build([recipe], tmp_path / "cache", lambda _: None)
    assert before.name != after.name
    assert before.base_name == after.base_name


@pytest.mark.requirement("O6")
def test_who_is_not_root_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an engine and without root nothing is tried: the error says what would help."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(CannotBuild, match="only root can start one") as told:
        daemon.provide()
    assert told.value.curable


@pytest.mark.requirement("O6")
def test_an_unfinished_daemon_is_ended_with_all_it_started(tmp_path: Path) -> None:
    """The first process of the namespaces is killed, and the one outside returns: nothing runs on."""
    if os.geteuid() != 0:
        pytest.skip("root: namespaces are made")
    process = subprocess.Popen([*daemon.NAMESPACES, "sh", "-c", f"sleep 600 & echo > {tmp_path / 'up'}; wait"])
    while not (tmp_path / "up").exists():
        os.sched_yield()
    daemon.end(process)
    assert process.returncode is not None
