"""Real services for the notebooks, with patience for a busy machine: the example's, and the one of notebook 07."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tools.demo import MANIFEST, ROOT, SERVE, serving, stop

PATIENCE_SECONDS = 300
"""What an item may take; the manifest's 30 s are for machines that do nothing else."""


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a kernel beside that service; nothing else of this machine is in it."""
    folder = tmp_path_factory.mktemp("service")
    apart = _apart(folder)
    environ = {**os.environ, **apart}
    subprocess.run([sys.executable, "tools/weights.py"], cwd=ROOT, env=environ, check=True)
    yield from _served(_patient(ROOT / MANIFEST, folder / "manifest.yaml"), folder, apart)


@pytest.fixture(scope="session")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The same beside the service that `tools.hybrid` makes."""
    folder = tmp_path_factory.mktemp("hybrid")
    apart = _apart(folder)
    command = [sys.executable, "-m", "tools.hybrid", "--folder", str(folder), "--only-make"]
    subprocess.run(command, cwd=ROOT, env={**os.environ, **apart}, check=True)
    yield from _served(_patient(folder / "hybrid.yaml", folder / "patient.yaml"), folder, apart)


def _apart(folder: Path) -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {"XDG_RUNTIME_DIR": str(folder), "XDG_CACHE_HOME": str(folder / "cache"), "KUBECONFIG": "", "PATH": path}


def _served(manifest: Path, folder: Path, apart: dict[str, str]) -> Iterator[dict[str, str]]:
    command = [str(manifest) if word == MANIFEST else word for word in SERVE]
    with serving(command, {**os.environ, **apart}, folder / "server.log") as server:
        yield apart
        stop(server)


def _patient(source: Path, path: Path) -> Path:
    """The manifest in `source`, written to `path`."""
    whole = yaml.safe_load(source.read_text(encoding="utf-8"))
    whole["spec"].setdefault("batching", {})["itemTimeoutSeconds"] = PATIENCE_SECONDS
    whole["spec"]["drain"] = {"requestSeconds": PATIENCE_SECONDS}
    path.write_text(yaml.safe_dump(whole), encoding="utf-8")
    return path
