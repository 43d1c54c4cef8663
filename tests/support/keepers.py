"""A folder on every node of a cluster, that tests fill and read: weights for pods to load, journals that pods leave.

A pod of the system's own on each node (a DaemonSet, as root, in a namespace of its own) has the folder; services' pods
have it by claims, as a restricted namespace allows.
"""

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.grounds import Ground
from tools.weights import fill

USER = 65532
"""Of the server's pods."""
STORE, JOURNALS, TINY = "store", "journals", "tiny"
Plain = dict[str, Any]


@dataclass(frozen=True)
class Keepers:
    """The pods, and the folder."""

    ground: Ground
    namespace: str
    folder: str

    def pods(self) -> list[str]:
        """One for each node."""
        out = self.ground.kubectl("-n", self.namespace, "get", "pods", "-o", "jsonpath={.items[*].metadata.name}")
        return out.split()

    def run(self, program: str, stdin: bytes | None = None) -> list[str]:
        """What a shell in the folder of each node says to `program`."""
        given = ("-i",) if stdin is not None else ()
        return [
            self.ground.piped(
                "-n", self.namespace, "exec", *given, pod, "--", "sh", "-c", program, stdin=stdin
            ).decode()
            for pod in self.pods()
        ]

    def fill(self, folder: str, source: Path) -> None:
        """Put what lies in `source` into `folder` of every node, as the servers' user's own."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", dereference=True) as archive:
            archive.add(source, arcname=folder, filter=_owned)
        self.run("tar -x", packed.getvalue())

    def claim(self, namespace: str, name: str, folder: str) -> list[Plain]:
        """The claim `name` in `namespace`, which is `folder` on each node, and its volume."""
        size, volume = {"storage": "1Gi"}, f"{namespace}-{name}"
        modes = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
        place = {"hostPath": {"path": f"{self.folder}/{folder}"}}
        bound = {"claimRef": {"namespace": namespace, "name": name}, "persistentVolumeReclaimPolicy": "Retain"}
        asked = {"volumeName": volume, "resources": {"requests": size}}
        made = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume, "labels": LABEL}}
        want = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": namespace}}
        return [made | {"spec": {"capacity": size, **modes, **place, **bound}}, want | {"spec": {**modes, **asked}}]


LABEL = {"app": "embedfleet-e2e"}


def _owned(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = USER
    entry.mode |= 0o444 | (0o111 if entry.isdir() else 0)
    return entry


@contextmanager
def keepers(ground: Ground, namespace: str, weights: Path) -> Iterator[Keepers]:
    """The keepers, with the weights of the example's model and of a small one in the store of each node.

    `weights` is a folder for them here.
    """
    from tests.support.tiny_models import make_bert  # PyTorch, which only who gets here needs

    made = Keepers(ground, namespace, f"/var/lib/embedfleet-e2e/{namespace}")
    ground.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}, _daemons(made))
    try:
        ground.kubectl("-n", namespace, "rollout", "status", "daemonset/keeper", "--timeout=120s")
        fill(weights)
        make_bert(weights / TINY, normalize=True)
        made.fill(STORE, weights)
        made.run(f"mkdir -p {JOURNALS} && chown {USER}:{USER} {JOURNALS} {STORE}")
        yield made
        made.run("rm -rf ./*")
    finally:
        ground.kubectl("delete", "persistentvolumes", "-l", "app=embedfleet-e2e", "--wait=false")
        ground.kubectl("delete", "namespace", namespace, "--wait=false")


def _daemons(keeper: Keepers) -> Plain:
    container = {
        "name": "keeper",
        "image": keeper.ground.images.server.name,
        "command": ["sleep", "infinity"],
        "workingDir": "/folder",
        "securityContext": {"runAsUser": 0},
        "volumeMounts": [{"name": "folder", "mountPath": "/folder"}],
    }
    volume = {"name": "folder", "hostPath": {"path": keeper.folder, "type": "DirectoryOrCreate"}}
    pod = {"containers": [container], "volumes": [volume], "terminationGracePeriodSeconds": 0}
    template = {"metadata": {"labels": LABEL}, "spec": {**pod, "tolerations": [{"operator": "Exists"}]}}
    metadata = {"name": "keeper", "namespace": keeper.namespace}
    spec = {"selector": {"matchLabels": LABEL}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": metadata, "spec": spec}
