"""One real service for all notebooks: the example's three models, with patience for a busy machine."""

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
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    apart = {"XDG_RUNTIME_DIR": str(folder), "XDG_CACHE_HOME": str(folder / "cache"), "KUBECONFIG": "", "PATH": path}
    environ = {**os.environ, **apart}
    subprocess.run([sys.executable, "tools/weights.py"], cwd=ROOT, env=environ, check=True)
    manifest = _patient(folder / "manifest.yaml")
    command = [str(manifest) if word == MANIFEST else word for word in SERVE]
    with serving(command, environ, folder / "server.log") as server:
        yield apart
        stop(server)


def _patient(path: Path) -> Path:
    """The example's manifest, written to `path`."""
    whole = yaml.safe_load((ROOT / MANIFEST).read_text(encoding="utf-8"))
    whole["spec"]["batching"]["itemTimeoutSeconds"] = PATIENCE_SECONDS
    whole["spec"]["drain"] = {"requestSeconds": PATIENCE_SECONDS}
    path.write_text(yaml.safe_dump(whole), encoding="utf-8")
    return path
