"""`embedfleet serve` of a real model, from the manifest to the exit."""

import os
import signal
import subprocess
import sys
from pathlib import Path

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
