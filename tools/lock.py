"""Write constraints.txt: every dependency of the distributions, the tests and the tools, pinned with hashes.

Pins stay as they are unless a pyproject file asks for something else; `--upgrade` takes the newest of all. Which index
they come from is pip's own configuration and is not written down.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "constraints.txt"
DISTRIBUTIONS = ("sdk", "images/server", "operator")
_HEAD = "# Every dependency of the three distributions and of the tests and tools, with hashes. Made by: make lock\n"
_NO_INDEX = ("--no-emit-index-url", "--no-emit-find-links", "--no-emit-trusted-host")


def requirements(root: Path) -> list[str]:
    """What the pyproject files under `root` ask for, without the distributions themselves."""
    projects = [_toml(root / folder)["project"] for folder in DISTRIBUTIONS]
    ours = {project["name"] for project in projects}
    asked = [line for project in projects for line in _asked(project)]
    asked += _toml(root / "sdk")["build-system"]["requires"]
    asked += _toml(root)["dependency-groups"]["dev"]
    return sorted({line for line in asked if _name(line) not in ours})


def _asked(project: dict[str, Any]) -> list[str]:
    extras = project.get("optional-dependencies", {}).values()
    return [*project["dependencies"], *(line for extra in extras for line in extra)]


def _name(requirement: str) -> str:
    return re.split(r"[^-\w.]", requirement, maxsplit=1)[0]


def _toml(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))


def main(options: list[str]) -> int:
    """Run pip-compile on what is asked for; returns its exit status."""
    with tempfile.TemporaryDirectory() as folder:
        asked, made = Path(folder) / "pyproject.toml.in", Path(folder) / "constraints.txt"
        asked.write_text("\n".join(requirements(ROOT)) + "\n", encoding="utf-8")
        made.write_bytes(LOCK.read_bytes())  # pip-compile keeps the pins it finds in its output
        done = subprocess.run(_command(asked, made, options), cwd=folder, check=False)
        if done.returncode == 0:
            _replace(LOCK, _HEAD + made.read_text(encoding="utf-8").replace(f"-r {asked.name}", "pyproject.toml"))
    return done.returncode


def _command(asked: Path, made: Path, options: list[str]) -> list[str]:
    compile_ = [sys.executable, "-m", "piptools", "compile", "--quiet", "--generate-hashes", "--allow-unsafe"]
    return [*compile_, "--no-header", "--strip-extras", *_NO_INDEX, *options, "--output-file", made.name, asked.name]


def _replace(path: Path, text: str) -> None:
    draft = path.with_suffix(".new")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
