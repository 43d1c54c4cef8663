"""The tool that fills the local store of weights."""

from pathlib import Path

import pytest

from embedfleet_server.models.store import find
from tools import weights


def test_the_store_has_the_layout_of_the_hugging_face_cache(tmp_path: Path) -> None:
    """What it writes is found by repository and branch, with every file of the package."""
    snapshot = weights.fill(tmp_path)
    assert find(tmp_path, weights.REPOSITORY, "main") == snapshot
    assert len(snapshot.name) == 40
    source = weights.packaged_model()
    names = {file.relative_to(source) for file in source.rglob("*") if file.is_file()}
    assert {file.relative_to(snapshot) for file in snapshot.rglob("*") if file.is_file()} == names


def test_filling_again_changes_nothing(tmp_path: Path) -> None:
    """A second run finds the snapshot whole; a file cut short is put back."""
    snapshot = weights.fill(tmp_path)
    before = (snapshot / "config.json").stat()
    assert weights.fill(tmp_path) == snapshot
    assert (snapshot / "config.json").stat() == before
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").touch()
    assert weights.fill(tmp_path) == snapshot
    assert (snapshot / "config.json").stat().st_size == before.st_size
    assert [entry.name for entry in snapshot.parent.iterdir()] == [snapshot.name]


def test_without_the_package_it_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line and exit status 1, no traceback."""
    monkeypatch.setattr(weights, "PACKAGE", "no_such_package")
    assert weights.main([str(tmp_path)]) == 1
    assert "package no-such-package is not installed" in capsys.readouterr().err
