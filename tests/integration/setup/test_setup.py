"""`tools/setup.sh`: an environment from nothing, at no cost when it is there, made afresh when it was interrupted.

Runs in a small copy of the tree: three empty distributions, and of the pins only those that build them.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
BUILD = ("editables", "hatchling", "packaging", "pathspec", "pluggy", "tomlkit", "trove-classifiers")
STAMP = Path(".venv/.embedfleet-installed")
BEGUN = Path(".venv/.embedfleet-begun")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what the script reads, with nothing installed."""
    for folder, package in {"sdk": "one", "images/server": "two", "operator": "three"}.items():
        source = tmp_path / folder / "src" / package
        source.mkdir(parents=True)
        (source / "__init__.py").write_text(f'HERE = "{folder}"\n')
        (tmp_path / folder / "pyproject.toml").write_text(project(package))
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "setup.sh", tmp_path / "tools")
    pins = re.split(r"^(?=[\w.-]+==)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), flags=re.MULTILINE)
    (tmp_path / "constraints.txt").write_text("".join(pin for pin in pins if pin.partition("==")[0] in BUILD))
    return tmp_path


def project(package: str) -> str:
    return (
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        f'[project]\nname = "{package}"\nversion = "1"\n'
        f'[tool.hatch.build.targets.wheel]\npackages = ["src/{package}"]\n'
    )


def setup(tree: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    script = ["sh", str(tree / "tools" / "setup.sh")]
    return subprocess.run(script, env={**os.environ, **environ}, capture_output=True, text=True, check=False)


def imports(tree: Path) -> str:
    """What the environment's own interpreter says of the three packages."""
    program = "import one, two, three; print(one.HERE, two.HERE, three.HERE)"
    command = [str(tree / ".venv" / "bin" / "python"), "-c", program]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False).stdout.strip()


def test_made_once_and_again_after_a_change(tree: Path) -> None:
    """The first run installs the packages, the second does nothing, and a changed pyproject is installed anew."""
    first = setup(tree)
    assert first.returncode == 0, first.stderr
    assert imports(tree) == "sdk images/server operator"
    assert not (tree / BEGUN).exists()
    assert setup(tree).stderr == ""
    before = (tree / STAMP).read_text()
    with (tree / "sdk" / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    assert setup(tree).returncode == 0
    assert (tree / STAMP).read_text() != before


def test_an_interrupted_install_is_made_afresh(tree: Path) -> None:
    """A package whose copying was cut off counts as installed for pip; the next run still ends with a whole one."""
    python = tree / ".venv" / "bin" / "python"
    assert setup(tree).returncode == 0
    package = next((tree / ".venv" / "lib").glob("python*/site-packages/hatchling"))
    shutil.rmtree(package)
    (tree / STAMP).unlink()
    (tree / BEGUN).touch()
    assert setup(tree).returncode == 0
    subprocess.run([str(python), "-c", "import hatchling"], check=True)


def test_a_missing_python_is_told(tree: Path) -> None:
    """Without a usable interpreter the message says what is needed, where was looked, and what to type."""
    done = setup(tree, PYTHON="no-such-python")
    assert done.returncode == 1
    for words in ("Python 3.11 or later", "no-such-python", "apt-get install python3 python3-venv"):
        assert words in done.stderr
    assert not (tree / ".venv").exists()
