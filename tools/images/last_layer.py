"""The last layer of an image, made without Docker: its Dockerfile makes the same files, and the tests compare both."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.images import layout, sbom
from tools.images.errors import BuildFailed
from tools.images.recipes import Recipe
from tools.images.unpack import CODE, unpack

SBOM = "opt/embedfleet/sbom.cdx.json"
"""Where the bill of materials of an image lies in it."""
DEPENDENCIES = "opt/embedfleet/dependencies.cdx.json"
"""Where that of the layers below the last one lies."""


def make(recipe: Recipe, dependencies: bytes, target: Path) -> layout.Layer:
    """Write the layer to `target`; `dependencies` is the bill of materials of the layers below.

    Raises `BuildFailed` when a package cannot be built.
    """
    with tempfile.TemporaryDirectory() as folder:
        wheels, root = Path(folder) / "wheels", Path(folder) / "root"
        for project in recipe.projects:
            _wheel(recipe.root / project, wheels)
        code = root / CODE.removeprefix("/")
        code.mkdir(parents=True)
        unpack(code, sorted(wheels.glob("*.whl")))
        told = sbom.whole(json.loads(dependencies), code, recipe.name, recipe.version)
        (root / SBOM).write_text(sbom.text(told), encoding="utf-8")
        return layout.tar(root, target)


def _wheel(project: Path, target: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildFailed(f"the wheel of {project}: {done.stdout}{done.stderr}")
