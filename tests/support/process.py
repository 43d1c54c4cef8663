"""A server in a process of its own: the real signals, ports, files and exit."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from embedfleet.api.local import LocalRecord, read_records

ROOT = Path(__file__).parents[2]
FAKE, REAL = "tests.support.serve_fake", "embedfleet_server"
"""What can be run: the server's own entry, or the same with fake models."""


@dataclass(frozen=True, slots=True)
class Process:
    """A server in a process of its own."""

    running: subprocess.Popen[str]
    gate: Path
    runtime: Path

    @property
    def record(self) -> LocalRecord:
        """How the SDK finds it."""
        (found,) = read_records(self.runtime)
        return found

    def line(self, words: str) -> str:
        """Its next line on stdout that holds `words`."""
        assert self.running.stdout is not None
        return next(line for line in self.running.stdout if words in line)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        observe: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[HTTPResponse, Any]:
        """One request on a connection of its own."""
        address = urlsplit(self.record.observe_url if observe else self.record.url)
        connection = HTTPConnection(address.hostname or "", address.port, timeout=60)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), dict(headers or {}))
            response = connection.getresponse()
            return response, json.loads(response.read())
        finally:
            connection.close()

    def embed(self, text: str) -> tuple[HTTPResponse, Any]:
        """`POST /v1/embeddings`."""
        return self.ask("POST", "/v1/embeddings", {"input": text})

    def stop(self) -> str:
        """Ctrl-C; what it printed to its end, which must be a clean one."""
        self.running.send_signal(signal.SIGINT)
        out, _ = self.running.communicate(timeout=60)
        assert self.running.returncode == 0
        return out

    def until_closing(self) -> None:
        """Returns once the server knows of the signal."""
        while self.ask("GET", "/state", observe=True)[1]["lifecycle"] != "Closing":
            pass


@contextmanager
def process(
    directory: Path,
    *arguments: str,
    models: Sequence[Any] = (),
    module: str = FAKE,
    extra: Mapping[str, str] | None = None,
    drain: Mapping[str, int] | None = None,
    tracing: Mapping[str, Any] | None = None,
    pipelines: Sequence[Any] | None = None,
) -> Iterator[Process]:
    """`python -m module` on free ports, announcing; killed at the end if it still runs.

    `models`, `drain`, `tracing` and `pipelines` are the manifest's, `extra` goes into its environment.
    """
    gate, runtime = directory / "gate", directory / "run"
    os.mkfifo(gate)
    given = list(models) or [{"name": "semantic", "source": {"path": "unused"}}]
    settings = {"service": "fleet", "gpuCount": 0, "models": given, "drain": dict(drain or {}), "tracing": tracing}
    settings |= {} if pipelines is None else {"pipelines": list(pipelines)}
    (directory / "models.json").write_text(json.dumps(settings))
    (directory / "batching.json").write_text("{}")
    command = [sys.executable, "-m", module, "--settings", str(directory), "--runtime", str(runtime)]
    options = ["--announce", "--port", "0", *arguments]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environ = os.environ | {"FAKE_GATE": str(gate), "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"} | dict(extra or {})
    with subprocess.Popen(
        [*command, *options], cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            yield Process(running, gate, runtime)
        finally:
            running.kill()
