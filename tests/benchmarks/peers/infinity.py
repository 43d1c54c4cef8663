"""infinity-emb 0.0.78, the peer to be faster than: a virtual environment of its own, a server on loopback.

The environment is made on demand (some GB, once) under the user's cache; `infinity.txt` beside this file pins it.
"""

import contextlib
import os
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.peers import environment
from tests.benchmarks.peers.environment import PeerMissing
from tests.benchmarks.ports import free_port

VERSION = "0.0.78"
MODEL = "semantic"
_PINS = Path(__file__).with_name("infinity.txt")
_STARTING = 180.0
_OPTIONS = ("--engine", "torch", "--dtype", "float32", "--device", "cpu", "--no-bettertransformer", "--no-compile")


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers at `url`."""

    url: str


@contextlib.contextmanager
def running(model: Path) -> Iterator[Running]:
    """A server of the model in directory `model`, ready; raises `PeerMissing`. Gone when the block is left."""
    command = [str(_installed()), "v2", "--model-id", str(model), "--served-model-name", MODEL, *_OPTIONS]
    port = free_port()
    command += ["--host", "127.0.0.1", "--port", str(port), "--url-prefix", "/v1", "--log-level", "error"]
    with tempfile.TemporaryDirectory(prefix="embedfleet-peer-") as folder:
        log = Path(folder) / "log"
        with (
            log.open("wb") as out,
            subprocess.Popen(command, cwd=folder, env=_environ(folder), stdout=out, stderr=out) as server,
        ):
            try:
                _wait(server, f"http://127.0.0.1:{port}/health", log)
                yield Running(f"http://127.0.0.1:{port}")
            finally:
                server.kill()


def _installed() -> Path:
    """The peer's command, in its own environment, which is made if it is not there. Raises `PeerMissing`."""
    return environment.installed(f"infinity-{VERSION}", _PINS, size="some GB") / "bin" / "infinity_emb"


def _environ(folder: str) -> dict[str, str]:
    """Nothing asked of a hub or told to anybody; what it writes goes to a temporary folder."""
    own = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0", "INFINITY_HOME": folder}
    return {**os.environ, **own}


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    limit = time.monotonic() + _STARTING
    while time.monotonic() < limit:
        if server.poll() is not None:
            break
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.2)
    tail = log.read_text(encoding="utf-8", errors="replace")[-400:]
    raise PeerMissing(f"the server did not start (status {server.poll()}): {tail}")
