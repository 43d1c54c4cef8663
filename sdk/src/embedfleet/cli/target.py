"""What a command is about, and whether that can be in a cluster; light, since most commands need none."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedfleet import environment

if TYPE_CHECKING:
    from embedfleet.managing import Place


@dataclass(frozen=True, slots=True)
class Target:
    """A service, or all when there is no name."""

    name: str | None
    namespace: str | None = None
    context: str | None = None

    def place(self) -> "Place":
        """The service in its cluster. Raises `NoCluster`."""
        from embedfleet import fleet

        assert self.name is not None
        return fleet.enter(self.name, self.namespace, self.context)

    @property
    def is_in_a_cluster(self) -> bool:
        """Whether a service of this machine cannot be meant."""
        return self.namespace is not None or self.context is not None

    @property
    def may_be_in_a_cluster(self) -> bool:
        """Whether there is a cluster that could have it."""
        around = environment.read()
        there = around.pod is not None or any(file.exists() for file in around.kubeconfigs)
        return self.is_in_a_cluster or there
