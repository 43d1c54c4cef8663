"""Helm, a cluster of the chart's own (a CRD that goes takes every service of the cluster with it), and its releases."""

import json
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster.build import binaries
from tests.cluster.cluster import Cluster
from tests.support.charts import CRD, Helm
from tests.support.clusters import require, running

MONITORING = Path(__file__).parent / "monitoring"
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Helm without a cluster."""
    require()
    return Helm(binaries("helm") / "helm", tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def ground() -> Iterator[Cluster]:
    """A control plane for the chart's tests alone."""
    with running() as made:
        yield made


@pytest.fixture
def home(ground: Cluster) -> Iterator[str]:
    """A namespace that takes restricted pods only; a CRD that a release left goes with it."""
    name = f"chart-{secrets.token_hex(4)}"
    ground.kubectl("create", "namespace", name)
    ground.kubectl("label", "namespace", name, RESTRICTED)
    yield name
    ground.kubectl("delete", "namespace", name, "--wait=false")
    ground.kubectl("delete", "crd", CRD, "--ignore-not-found")


@pytest.fixture
def releases(helm: Helm, ground: Cluster, home: str) -> Iterator[Helm]:
    """Helm against the cluster, in `home`; releases that a test leaves are uninstalled."""
    made = replace(helm, kubeconfig=ground.kubeconfig, namespace=home)
    yield made
    for release in json.loads(made.run("list", "--all", "-o", "json")):
        made.run("uninstall", release["name"])


@pytest.fixture(scope="session")
def prometheus_types() -> list[Path]:
    """CRDs of the Prometheus operator, from the source that go.sum pins; skips where that cannot be fetched."""
    module = "github.com/prometheus-operator/prometheus-operator"
    asked = ["go", "mod", "download", "-json", module]
    done = subprocess.run(asked, cwd=MONITORING, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"{module} cannot be fetched: {done.stdout}{done.stderr}")
    folder = Path(json.loads(done.stdout)["Dir"]) / "example" / "prometheus-operator-crd"
    return [folder / f"monitoring.coreos.com_{kind}.yaml" for kind in ("servicemonitors", "prometheusrules")]
