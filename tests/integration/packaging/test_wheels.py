"""Each distribution builds as a wheel that installs into an empty environment and works there."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "embeddingservice.yaml"
DISTRIBUTIONS = {"embedfleet": "sdk", "embedfleet-server": "images/server", "embedfleet-operator": "operator"}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel of each distribution, built from the tree."""
    folder = tmp_path_factory.mktemp("wheels")
    sources = [str(ROOT / source) for source in DISTRIBUTIONS.values()]
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), *sources)
    return {name: next(folder.glob(f"{name.replace('-', '_')}-[0-9]*.whl")) for name in DISTRIBUTIONS}


@pytest.fixture(scope="module")
def pins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """constraints.txt without its hashes, which would ask for hashes of our own wheels too."""
    lines = re.findall(r"^[\w.-]+==\S+", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    path = tmp_path_factory.mktemp("pins") / "pins.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def pip(*arguments: str) -> None:
    """Run this environment's pip; what it says is shown when it fails."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def environment(folder: Path, pins: Path, *wheels: Path) -> Path:
    """An empty environment with the wheels and their pinned dependencies; returns its folder of programs."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    pip("--python", str(folder / "bin" / "python"), "install", "--constraint", str(pins), *map(str, wheels))
    return folder / "bin"


def output(*command: str | Path, cwd: Path, status: int = 0) -> str:
    """What the command prints, run far from the tree and without what this session's environment sets for Python."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    arguments = [str(part) for part in command]
    done = subprocess.run(arguments, cwd=cwd, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_wheels_hold_the_package_and_its_licence(wheels: dict[str, Path]) -> None:
    """A wheel holds one package with its type marker, the licence, and nothing of tests or tools."""
    for name, wheel in wheels.items():
        files = zipfile.ZipFile(wheel).namelist()
        package = name.replace("-", "_")
        assert f"{package}/py.typed" in files
        assert any(file.endswith("licenses/LICENSE") for file in files)
        assert {file.partition("/")[0].partition("-")[0] for file in files} == {package}


def test_the_sdk_works_alone(wheels: dict[str, Path], pins: Path, tmp_path: Path) -> None:
    """`embedfleet` tells its version, validates a manifest, and says what `serve` needs when no server is installed."""
    programs = environment(tmp_path / "env", pins, wheels["embedfleet"])
    assert "0.1.0" in output(programs / "embedfleet", "version", cwd=tmp_path)
    output(programs / "embedfleet", "validate", "-f", EXAMPLE, cwd=tmp_path)
    refusal = output(programs / "embedfleet", "serve", "-f", EXAMPLE, cwd=tmp_path, status=1)
    assert "pip install" in refusal
    assert "embedfleet-server" in refusal


def test_the_server_starts_without_its_models(wheels: dict[str, Path], pins: Path, tmp_path: Path) -> None:
    """`python -m embedfleet_server` shows its options in an environment without torch."""
    programs = environment(tmp_path / "env", pins, wheels["embedfleet"], wheels["embedfleet-server"])
    assert "--settings" in output(programs / "python", "-m", "embedfleet_server", "--help", cwd=tmp_path)


def test_the_operator_renders(wheels: dict[str, Path], pins: Path, tmp_path: Path) -> None:
    """`python -m embedfleet_operator render` prints the objects of a manifest."""
    programs = environment(tmp_path / "env", pins, wheels["embedfleet"], wheels["embedfleet-operator"])
    render = (programs / "python", "-m", "embedfleet_operator", "render")
    printed = output(*render, "-f", EXAMPLE, "--server-image", "server:1", cwd=tmp_path)
    assert "semantic-batching" in printed
