"""`python -m embedfleet_server` with models whose forward takes a fixed time, however large the batch.

So a server's capacity is known, and what it does beyond it is its own doing.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from embedfleet.api.local import LocalRecord, read_records
from embedfleet_server.__main__ import configure, leave, run
from embedfleet_server.app.settings import load
from embedfleet_server.engine.protocols import Encoded, Rows
from tests.benchmarks.child import ROOT
from tests.support.fake_model import FakeModel

FORWARD_SECONDS = 0.1
"""With batches of 32 that is 320 texts a second: two cores can send and refuse three times as many."""
_SECONDS = "EMBEDFLEET_BENCHMARK_FORWARD_SECONDS"


class PacedModel(FakeModel):
    """As slow as a device; the interpreter is free meanwhile, as it is while a device computes."""

    def __init__(self, name: str, seconds: float) -> None:
        super().__init__(name)
        self._seconds = seconds

    def forward(self, batch: Sequence[Encoded]) -> Rows:
        """(n, native_dimensions) float32."""
        began = time.monotonic()
        rows = super().forward(batch)
        time.sleep(max(0.0, began + self._seconds - time.monotonic()))
        return rows


@contextlib.contextmanager
def running(seconds: float = FORWARD_SECONDS) -> Iterator[LocalRecord]:
    """Such a server in a process of its own, ready; killed when the block is left. A forward takes `seconds`.

    Its log goes to a file: a pipe that nobody reads would stop it once it is full.
    """
    with tempfile.TemporaryDirectory(prefix="embedfleet-bench-") as name:
        folder = Path(name)
        models = [{"name": "semantic", "source": {"path": "unused"}}]
        (folder / "models.json").write_text(json.dumps({"service": "paced", "gpuCount": 0, "models": models}))
        (folder / "batching.json").write_text(json.dumps({"batching": {"sizing": "Fixed"}}))
        command = [sys.executable, "-m", "tests.benchmarks.paced", "--settings", name, "--runtime", f"{name}/run"]
        options = ["--announce", "--port", "0"]
        with (
            (folder / "log").open("wb") as log,
            subprocess.Popen(
                [*command, *options],
                cwd=ROOT,
                env=os.environ | {_SECONDS: str(seconds)},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            ) as server,
        ):
            try:
                assert server.stdout is not None
                if not any("is ready at" in line for line in server.stdout):
                    raise RuntimeError(f"the server did not start: {(folder / 'log').read_text()[-1000:]}")
                (record,) = read_records(folder / "run")
                yield record
            finally:
                server.kill()


if __name__ == "__main__":
    config, taken = configure(sys.argv[1:], os.environ), float(os.environ.get(_SECONDS, FORWARD_SECONDS))
    leave(run(config, load(config.settings), lambda spec: lambda: PacedModel(spec.name, taken)))
