"""`python -m embedfleet_operator render`: a manifest in, a JSON list out, every mistake named."""

import io
import json
from pathlib import Path

import pytest

from embedfleet_operator.__main__ import main
from tests.unit.operator.regenerate import GOLDENS, SITE

OPTIONS = ["--server-image", str(SITE.server_image), "--operator-namespace", str(SITE.operator_namespace)]
OPTIONS += [f"--api-server-cidr={cidr}" for cidr in SITE.api_server_cidrs]


def test_prints_the_objects_as_a_json_list(capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed for a golden's manifest is the golden, byte for byte."""
    assert main(["render", "-f", str(GOLDENS / "ingress.yaml"), *OPTIONS]) == 0
    assert capsys.readouterr().out == (GOLDENS / "ingress.json").read_text(encoding="utf-8")


def test_reads_json_and_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`-f -` reads standard input, and JSON is as good as YAML."""
    models = [{"name": "m", "source": {"path": "/w"}}]
    manifest = {"metadata": {"name": "a"}, "spec": {"models": models, "image": "server:1"}}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(manifest)))
    assert main(["render", "-f", "-"]) == 0
    kinds = [made["kind"] for made in json.loads(capsys.readouterr().out)]
    assert kinds[0] == "ServiceAccount"
    assert kinds[-1] == "Deployment"


@pytest.mark.requirement("O5")
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("metadata: {name: A}\nspec: {models: []}\n", ["metadata.name", "spec.models"]),
        ("- a\n- b\n", ["must be a mapping"]),
        ("a: [\n", ["line"]),
        ("a: 1\n---\nb: 2\n", ["single document"]),
        (
            "metadata: {name: a}\nspec:\n  gpu: {count: 1, count: 2}\n  models: [{name: m}]\n  models: []\n",
            ["spec.gpu.count: stands twice, on line 3 and on line 3", "spec.models: stands twice, on line 4 and on"],
        ),
        ("a: !!int x\n", ["cannot be read"]),
        ("metadata: {name: a}\nspec: {image: i, models: [{name: m, source: {path: w}}]}\n", ["model m", "absolute"]),
        ("metadata: {name: a}\nspec: {models: [{name: m, source: {path: /w}}]}\n", ["spec.image"]),
    ],
)
def test_names_every_mistake(text: str, told: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A manifest that is wrong, or of which no pod can come, gives exit status 2 and all that is wrong with it."""
    path = tmp_path / "manifest.yaml"
    path.write_text(text, encoding="utf-8")
    assert main(["render", "-f", str(path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert [word for word in told if word not in printed.err] == []


def test_a_revision_that_looks_like_a_date_is_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What YAML 1.1 takes for a date stays as it is written; a merge key (`<<`) is no key that stands twice."""
    path = tmp_path / "manifest.yaml"
    hub = "&hub {repo: org/m, revision: 2024-01-01}"
    models = f"[{{name: m, source: {{huggingFace: {hub}}}}}, {{name: n, source: {{huggingFace: {{<<: *hub}}}}}}]"
    path.write_text(f"metadata: {{name: a}}\nspec: {{image: i, models: {models}}}\n", encoding="utf-8")
    assert main(["render", "-f", str(path)]) == 0
    assert "2024-01-01" in capsys.readouterr().out


def test_a_missing_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A path without a file gives exit status 2 and the path."""
    assert main(["render", "-f", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml" in capsys.readouterr().err


@pytest.mark.requirement("O7")
@pytest.mark.parametrize("seconds", ["1", "301", "x"])
def test_a_hold_that_is_too_short_or_long_is_refused(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A Lease held for under 2 s is lost by a slow answer, one of over 5 minutes leaves nobody to lead for as long."""
    with pytest.raises(SystemExit, match="2"):
        main(["run", f"--lease-seconds={seconds}"])
    assert "--lease-seconds" in capsys.readouterr().err
