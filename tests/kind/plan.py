"""What a kind cluster is to be: a plan as other clusters have, and how kind comes to its nodes."""

from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.plan import Plan, group_name

API_PORT = 6443
"""Where kind publishes the API server in the network of a Docker of our own."""


@dataclass(frozen=True, slots=True)
class KindPlan(Plan):
    """One kind cluster.

    Args:
        nodes: always 1; kind calls it NAME-control-plane.
        image: the node image's files, as `node_image.provide` made them; empty where a Docker runs, which has its own.
        below: the store that `store` has links into; may be empty.
        mounts: folders of this machine that the node sees: the path there, and the path here.
    """

    image: str = ""
    below: str = ""
    mounts: dict[str, str] = field(default_factory=dict)

    @property
    def own(self) -> bool:
        """Whether a Docker is started for this cluster alone."""
        return bool(self.image)

    @property
    def name(self) -> str:
        """What kind calls it; its control group is called the same."""
        return group_name(self.directory)

    @property
    def container(self) -> str:
        """What Docker and Kubernetes call the node."""
        return f"{self.name}-control-plane"

    @property
    def docker_socket(self) -> Path:
        """Where a Docker of our own listens."""
        return self.directory / "docker.sock"

    @property
    def docker_data(self) -> Path:
        """The data of a Docker of our own."""
        return self.directory / "docker"

    @property
    def containerd_data(self) -> Path:
        """The data of the node's containerd, where it begins with a store."""
        return self.directory / "containerd"

    @property
    def config(self) -> Path:
        """What kind is told."""
        return self.directory / "kind.yaml"

    @property
    def kind_kubeconfig(self) -> Path:
        """As kind writes it: its address is of the network that Docker is in."""
        return self.directory / "kind.kubeconfig"
