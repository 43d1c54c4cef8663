"""The operator as a process of its own, which can be killed."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.operators import Place

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def operating(place: Place, *options: str, kubeconfig: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m embedfleet_operator` for the namespace of `place` alone, by default as an administrator; killed at the
    end if it still runs. What it says stands in the report of a test that failed.
    """
    where = [f"--kubeconfig={kubeconfig or place.cluster.kubeconfig}", f"--namespace={place.namespace}"]
    how = ["--observe-port=0", "--resync-seconds=2", *options]
    with subprocess.Popen([sys.executable, "-m", "embedfleet_operator", *where, *how], cwd=ROOT) as running:
        try:
            yield running
        finally:
            running.kill()
