"""`python -m embedfleet_operator render`: a manifest in, a JSON list out, every mistake named."""

import io
import json
from pathlib import Path

import pytest

from embedfleet_operator.__main__ import main

GOLDENS = Path(__file__).parent / "goldens"


def test_prints_the_objects_as_a_json_list(capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed for a golden's manifest is the golden, byte for byte."""
    assert main(["render", "-f", str(GOLDENS / "cluster.yaml")]) == 0
    assert capsys.readouterr().out == (GOLDENS / "cluster.json").read_text(encoding="utf-8")


def test_reads_json_and_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`-f -` reads standard input, and JSON is as good as YAML."""
    manifest = {"metadata": {"name": "a"}, "spec": {"models": [{"name": "m", "source": {"path": "w"}}]}}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(manifest)))
    assert main(["render", "-f", "-"]) == 0
    assert [made["kind"] for made in json.loads(capsys.readouterr().out)] == ["ConfigMap", "ConfigMap"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("metadata: {name: A}\nspec: {models: []}\n", ["metadata.name", "spec.models"]),
        ("- a\n- b\n", ["must be a mapping"]),
        ("a: [\n", ["line"]),
        ("a: 1\n---\nb: 2\n", ["single document"]),
    ],
)
def test_names_every_mistake(text: str, told: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A manifest that is wrong is refused with exit status 2 and all that is wrong with it."""
    path = tmp_path / "manifest.yaml"
    path.write_text(text, encoding="utf-8")
    assert main(["render", "-f", str(path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert [word for word in told if word not in printed.err] == []


def test_a_missing_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A path without a file gives exit status 2 and the path."""
    assert main(["render", "-f", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml" in capsys.readouterr().err
