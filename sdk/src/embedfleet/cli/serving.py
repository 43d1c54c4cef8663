"""`embedfleet serve`: check the manifest, write the settings, become the server."""

import os
import shutil
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from embedfleet.api import EmbeddingService, split
from embedfleet.api.local import private_directory, read_records, runtime_directory
from embedfleet.api.settings import BATCHING_FILE, MODELS_FILE, to_json
from embedfleet.errors import AlreadyRunning, BadInput, ServerNotInstalled
from embedfleet.manifest import load

_NEEDED = ("embedfleet_server", "torch", "transformers", "sentence_transformers")
_HIGHEST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Guarded:
    """Directories of API keys and of the TLS pair; None leaves the port open, and plain."""

    api_keys: Path | None = None
    tls: Path | None = None

    def options(self) -> list[str]:
        """The server's own options; raises `BadInput` for what is no directory."""
        given = {"--api-keys": self.api_keys, "--tls": self.tls}
        named = [(option, path) for option, path in given.items() if path is not None]
        return [part for option, path in named for part in (option, _directory(option, path))]


_OPEN = Guarded()


def become_server(
    manifest: Path,
    host: str,
    port: int,
    observe_port: int | None,
    store: Path | None,
    guarded: Guarded = _OPEN,
) -> NoReturn:
    """Replace this process by a server of `manifest`; it keeps the process id, the terminal and the environment.

    Raises `ManifestInvalid`, `ServerNotInstalled`, `AlreadyRunning`, `BadInput`; nothing is written then.
    """
    service = load(manifest)
    ports = ["--port", str(port), "--observe-port", str(_observe_port(port, observe_port))]
    guards = guarded.options()
    _require_server()
    runtime = runtime_directory(os.environ)
    _refuse_second(runtime, service.metadata.name)
    settings = write_settings(runtime, service)
    # -P: a random.py or queue.py in the folder that one happens to be in is not to be imported by the server.
    command = [sys.executable, "-P", "-m", "embedfleet_server", "--settings", str(settings), "--host", host, *ports]
    os.execv(sys.executable, [*command, *(["--store", str(store)] if store else []), *guards, "--announce"])  # noqa: S606  # no shell


def _directory(option: str, path: Path) -> str:
    if not path.is_dir():
        raise BadInput(f"{option} {path} must be a directory, and is none")
    return str(path)


def _observe_port(port: int, given: int | None) -> int:
    if given is not None:
        return given
    if port == _HIGHEST_PORT:
        raise BadInput(f"--port {port} has no next port to observe on: name one by --observe-port")
    return port + 1 if port else 0


def _require_server() -> None:
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ServerNotInstalled(
            f"the server is not installed here whole, {', '.join(missing)} missing: "
            "pip install 'embedfleet-server[models]'"
        )


def _refuse_second(runtime: Path, name: str) -> None:
    for record in read_records(runtime):
        if record.service == name:
            raise AlreadyRunning(
                f"service {name} runs here already, as process {record.pid} at {record.url}: "
                f"stop it (kill {record.pid}), or give this one another name"
            )


def write_settings(runtime: Path, service: EmbeddingService) -> Path:
    """The two settings files in a fresh folder of this process; folders of the service's dead processes go."""
    home = private_directory(private_directory(private_directory(runtime) / "settings") / service.metadata.name)
    for old in home.iterdir():
        if old.name == str(os.getpid()) or not _runs(old.name):
            shutil.rmtree(old)
    folder = private_directory(home / str(os.getpid()))
    models, batching = split(service)
    (folder / MODELS_FILE).write_text(to_json(models), encoding="utf-8")
    (folder / BATCHING_FILE).write_text(to_json(batching), encoding="utf-8")
    return folder


def _runs(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):  # ValueError: no folder that this module made
        return False
    except PermissionError:
        return True
    return True
