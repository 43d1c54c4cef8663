"""The product under test: `embedfleet serve` of a manifest with one real model in float32, all else default."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from embedfleet.api.local import LocalRecord, read_records, runtime_directory
from tests.benchmarks.child import ROOT
from tools.weights import DEFAULT_STORE, REPOSITORY, fill

MODEL = "semantic"
_STARTING = 180.0
_PROGRAM = str(Path(sys.executable).with_name("embedfleet"))


def manifest(dtype: str = "Float32") -> str:
    """A service of the one model in this precision."""
    return f"""\
apiVersion: embedfleet.dev/v1alpha1
kind: EmbeddingService
metadata:
  name: {MODEL}
spec:
  models:
  - name: {MODEL}
    source: {{huggingFace: {{repo: {REPOSITORY}}}}}
    dtype: {dtype}
  gpu: {{count: 0}}
"""


class NotServing(Exception):
    """Our own server did not start; the message says why."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that is ready."""

    record: LocalRecord
    environ: dict[str, str]

    @contextlib.contextmanager
    def overridden(self, **values: int) -> Iterator[None]:
        """Other values of `spec.batching` while the block runs, by `embedfleet set`."""
        given = [f"{name}={value}" for name, value in values.items()]
        self._command("set", *given)
        try:
            yield
        finally:
            self._command("unset")

    def _command(self, verb: str, *words: str) -> None:
        subprocess.run([_PROGRAM, verb, MODEL, *words], env=self.environ, check=True, stdout=subprocess.DEVNULL)

    @property
    def url(self) -> str:
        """The public port."""
        return self.record.url

    def resident(self) -> int:
        """Bytes of memory resident in the server's process and its children."""
        server = psutil.Process(self.record.pid)
        return sum(int(process.memory_info().rss) for process in (server, *server.children(recursive=True)))

    def processor_seconds_by_thread(self) -> dict[str, float]:
        """Processor time used so far, by the name of the thread; torch's workers bear that of their device's thread."""
        seconds: dict[str, float] = {}
        for thread in psutil.Process(self.record.pid).threads():
            name = Path(f"/proc/{self.record.pid}/task/{thread.id}/comm").read_text(encoding="utf-8").strip()
            seconds[name] = seconds.get(name, 0.0) + thread.user_time + thread.system_time
        return seconds

    def processor_seconds(self) -> float:
        """Processor time the server has used, over all its threads."""
        times = psutil.Process(self.record.pid).cpu_times()
        return float(times.user + times.system)


def model_directory() -> Path:
    """The model's directory in the local store, which is filled if it is not."""
    return fill(Path(DEFAULT_STORE).expanduser())


@contextlib.contextmanager
def running(manifest_of: str | None = None) -> Iterator[Running]:
    """A server of a manifest (`manifest()`) on a free port, ready; gone when the block is left. Raises `NotServing`."""
    with tempfile.TemporaryDirectory(prefix="embedfleet-bench-") as folder:
        file, log = Path(folder) / "manifest.yaml", Path(folder) / "server.log"
        file.write_text(manifest_of or manifest(), encoding="utf-8")
        command = [_PROGRAM, "serve", "-f", str(file), "--port", "0"]
        environ = {**os.environ, "XDG_RUNTIME_DIR": folder, "EMBEDFLEET_STORE": DEFAULT_STORE, "HF_HUB_OFFLINE": "1"}
        with log.open("wb") as out, subprocess.Popen(command, cwd=ROOT, env=environ, stdout=out, stderr=out) as server:
            try:
                yield Running(ready(server, environ, log), environ)
            finally:
                server.terminate()
                server.wait(60)


def ready(server: subprocess.Popen[bytes], environ: dict[str, str], log: Path) -> LocalRecord:
    limit = time.monotonic() + _STARTING
    while time.monotonic() < limit and server.poll() is None:
        for record in read_records(runtime_directory(environ)):
            if _answers(f"{record.observe_url}/ready"):
                return record
        time.sleep(0.1)
    tail = log.read_text(encoding="utf-8", errors="replace")[-1000:]
    raise NotServing(f"`embedfleet serve` was not ready (status {server.poll()}): {tail}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
