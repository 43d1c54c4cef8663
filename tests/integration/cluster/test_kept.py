"""`make cluster` and `make cluster-down`: a cluster to try things on, with the operator at work in it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import operator
from tests.cluster.commands import kubectl
from tests.cluster.leftovers import assert_nothing_left, look
from tests.cluster.plan import Plan
from tests.support.clusters import require
from tests.support.operators import until

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "embeddingservice.yaml"


@pytest.mark.requirement("O1", "O4")
def test_a_kept_cluster_has_the_operator(tmp_path: Path) -> None:
    """What is printed leads to a cluster in which the example becomes Ready and is scaled; `down` ends both."""
    require()
    directory, before = tmp_path / "kept", look()
    said = command("up", "--hollow", "2", "--operator", "server:1", str(directory))
    try:
        plan = Plan.load(directory)
        assert f"export KUBECONFIG={plan.admin} " in said
        running = operator.process_of(directory)
        command("up", "--operator", "server:1", str(directory))  # up already: the operator is not started twice
        assert operator.process_of(directory) == running
        kubectl(plan, "apply", "-f", str(EXAMPLE))
        kubectl(plan, "wait", "--for=condition=Ready", "embed/semantic", "--timeout=60s")
        kubectl(plan, "scale", "embed/semantic", "--replicas=3")
        until(lambda: columns(plan)[:4] == ["semantic", "True", "3", "?/3"], 60)
        assert "3 of 3 pods take requests, each with 3 models" in kubectl(plan, "describe", "embed", "semantic")
        assert "Most inputs in one batch" in kubectl(plan, "explain", "embed.spec.batching")
    finally:
        command("down", str(directory))
    assert running is not None
    assert not running.is_running()
    assert_nothing_left(directory, before)


def command(*arguments: str) -> str:
    """What `python -m tests.cluster ARGUMENTS` prints."""
    done = [sys.executable, "-m", "tests.cluster", *arguments]
    return subprocess.run(done, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout


def columns(plan: Plan) -> list[str]:
    """What `kubectl get embed` says of the service."""
    return kubectl(plan, "get", "embed", "--no-headers").split()
