"""`python -m tests.support.full_disk DIR ENDPOINT BYTES`: fetch into a store on a disk of so many bytes.

Mounts it in a mount namespace of its own (`unshare --mount`), so that nobody else sees the disk, and nothing is left.
Prints what was found as a JSON object: the fetch on the full disk, what the store and a server then take for whole,
and the same once there is room.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from embedfleet.api.models import ModelSpec
from embedfleet.api.settings import MODELS_FILE
from embedfleet_server.app.settings import load_models
from embedfleet_server.engine.errors import ModelLoadFailed
from embedfleet_server.fetch import main as fetch
from embedfleet_server.models.loading import loader
from embedfleet_server.models.problems import ModelProblem
from embedfleet_server.models.store import resolve

_ROOM = 256 << 20


def main(directory: Path, endpoint: str, size: int) -> dict[str, Any]:
    """What came of it; `directory` has the settings, and gets the store."""
    store = directory / "store"
    store.mkdir()
    _mount(store, f"size={size}")
    found = {"full": _fetched(directory, endpoint, store), "server": _served(directory, store)}
    _mount(store, f"remount,size={_ROOM}")
    found["room"] = _fetched(directory, endpoint, store)
    return found


def _mount(store: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(store)], check=True)


def _fetched(directory: Path, endpoint: str, store: Path) -> dict[str, Any]:
    """One run of the init container: its exit status, its last words, and whether the store can serve the model."""
    word = directory / "termination-log"
    word.write_text("")
    arguments = ["--settings", str(directory), "--store", str(store), "--termination-log", str(word)]
    waits: list[float] = []
    status = fetch(arguments, {"HF_ENDPOINT": endpoint}, waits.append)
    return {"status": status, "word": word.read_text(), "waits": waits, "whole": _is_whole(_spec(directory), store)}


def _is_whole(spec: ModelSpec, store: Path) -> bool:
    try:
        resolve(spec.source, store=store, offline=True)
    except ModelProblem:
        return False
    return True


def _served(directory: Path, store: Path) -> str:
    """Why a server without an init container cannot load the model; it asks the hub of the environment itself."""
    try:
        loader(_spec(directory), store=store, offline=False, gpu_count=0)().close()
    except ModelLoadFailed as error:
        return str(error)
    return ""


def _spec(directory: Path) -> ModelSpec:
    assert (directory / MODELS_FILE).is_file()
    return load_models(directory).models[0]


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
