"""The product in a cluster, as helm installs it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.build import binaries
from tests.support.charts import CHART, RELEASE, Helm
from tests.support.grounds import Ground
from tests.support.images import Images, restricted

Plain = dict[str, Any]
SYSTEM = "embedfleet"
_OPERATORS = "app.kubernetes.io/name=embedfleet-operator"


@dataclass(frozen=True)
class Installed:
    """A release of the chart, and its cluster."""

    ground: Ground
    helm: Helm

    def kubectl(self, *arguments: str) -> str:
        """What kubectl says of the release's namespace."""
        return self.ground.kubectl("-n", SYSTEM, *arguments)

    def operators(self) -> dict[str, str]:
        """The operator's pods that stay: their names, by uid."""
        return {pod["metadata"]["uid"]: pod["metadata"]["name"] for pod in self._staying()}

    def running(self) -> set[str]:
        """The images of those pods."""
        return {pod["spec"]["containers"][0]["image"] for pod in self._staying()}

    def upgrade(self, values: Mapping[str, Any]) -> None:
        """Bring the release to its next revision; return once its pods are the new ones."""
        self.helm.upgrade(values)
        self.kubectl("rollout", "status", "deployment", "-l", _OPERATORS, "--timeout=120s")

    def _staying(self) -> list[Plain]:
        found: list[Plain] = json.loads(self.kubectl("get", "pods", "-l", _OPERATORS, "-o", "json"))["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def logs(self) -> str:
        """What the operator's replicas wrote."""
        return self.kubectl("logs", "-l", _OPERATORS, "--tail=-1", "--prefix")


@contextmanager
def release(ground: Ground, home: Path) -> Iterator[Installed]:
    """The chart in a restricted namespace, as `helm install --wait` leaves it; helm's own files are in `home`."""
    ground.create(restricted(SYSTEM))
    helm = Helm(binaries("helm") / "helm", home, ground.kubeconfig, SYSTEM)
    helm.run("install", RELEASE, str(CHART), "--wait", "--timeout", "180s", values=image_values(ground.images))
    try:
        yield Installed(ground, helm)
    finally:
        if RELEASE in helm.run("list", "--short"):
            helm.uninstall()
        ground.kubectl("delete", "namespace", SYSTEM, "--wait=false", "--ignore-not-found")


def image_values(images: Images) -> dict[str, str]:
    """The chart's values that name these images."""
    parts = {"image": images.operator.name.rpartition(":"), "serverImage": images.server.name.rpartition(":")}
    found = {f"{value}.repository": repository for value, (repository, _, _) in parts.items()}
    return found | {f"{value}.tag": tag for value, (_, _, tag) in parts.items()}
