"""`embedfleet serve` of a real model, from the manifest to the exit."""

import os
import signal
import subprocess
import sys
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import IO

import pytest

import embedfleet
from embedfleet.api.local import read_records
from tests.support.tiny_models import WIDTH, make_bert

MANIFEST = """
apiVersion: embedfleet.dev/v1alpha1
kind: EmbeddingService
metadata: {name: fleet}
spec:
  models:
  - name: semantic
    source: {path: weights}
  gpu: {count: 0}
"""


def serve(folder: Path) -> list[str]:
    file = folder / "manifest.yaml"
    command = str(Path(sys.executable).with_name("embedfleet"))
    return [command, "serve", "-f", str(file), "--port", "0", "--store", str(folder)]


@pytest.mark.requirement("K5", "S4")
def test_a_manifest_is_served_where_it_stands(tmp_path: Path) -> None:
    """The command's own process becomes the server; SIGTERM ends it with status 0, and a second start is refused.

    A `random.py` in the folder where it was started harms nobody.
    """
    make_bert(tmp_path / "weights", normalize=True)
    (tmp_path / "manifest.yaml").write_text(MANIFEST, encoding="utf-8")
    (tmp_path / "random.py").write_text("raise SystemExit('the wrong random')", encoding="utf-8")
    environ = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(serve(tmp_path), cwd=tmp_path, env=environ, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            assert any(b"fleet is ready at" in line for line in server.stdout)
            (record,) = read_records(tmp_path / "embedfleet")
            assert record.pid == server.pid
            with embedfleet.connect(url=record.url) as service:
                assert service.embed(["one", "two"]).shape == (2, WIDTH)
            second = subprocess.run(serve(tmp_path), env=environ, capture_output=True, text=True, check=False)
            assert second.returncode == 1
            assert f"process {server.pid} at {record.url}" in second.stderr
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 0
        finally:
            server.kill()


@pytest.mark.requirement("K5")
def test_of_two_that_start_at_once_one_serves(tmp_path: Path) -> None:
    """Neither sees the other's record yet; the later one ends with status 1 and says why, the other answers."""
    make_bert(tmp_path / "weights", normalize=True)
    (tmp_path / "manifest.yaml").write_text(MANIFEST, encoding="utf-8")
    environ = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path), "HF_HUB_OFFLINE": "1"}

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(serve(tmp_path), env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    with ThreadPoolExecutor(2) as threads, start() as one, start() as other:
        try:
            ends = {threads.submit(server.wait): server for server in (one, other)}
            (first,) = wait(ends, return_when=FIRST_COMPLETED).done
            last = other if ends[first] is one else one
            told = pipe(ends[first].stderr).read().decode()
            assert first.result() == 1, told
            assert "service fleet is served by another process here" in told or "runs here already" in told
            assert any(b"fleet is ready at" in line for line in pipe(last.stdout))
            (record,) = read_records(tmp_path / "embedfleet")
            with embedfleet.connect(url=record.url) as service:
                assert service.embed(["one"]).shape == (1, WIDTH)
        finally:
            one.kill()
            other.kill()


def pipe(end: IO[bytes] | None) -> IO[bytes]:
    assert end is not None
    return end
