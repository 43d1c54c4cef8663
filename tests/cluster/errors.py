"""What can go wrong with a test cluster.

ClusterError
├── MachineLacks     the machine has not what this size of cluster needs; all of it is named
├── BuildFailed      go build of its programs failed
├── StartFailed      a program of it ended, or something was not ready in time; the message ends with its log
├── CommandFailed    kubectl or ctr refused
└── LeftBehind       something of a closed cluster is still on the host
"""


class ClusterError(Exception):
    """The tree's root; the message says what to do where something can be done."""


class MachineLacks(ClusterError):
    """The machine has not what this size of cluster needs.

    Args:
        lacks: one sentence for each thing.
        curable: whether some set-up (another user, a package) could provide it; else it is as good as hardware.
    """

    def __init__(self, lacks: list[str], *, curable: bool) -> None:
        super().__init__("a test cluster of this size needs what this machine lacks: " + "; ".join(lacks))
        self.curable = curable


class BuildFailed(ClusterError):
    """The compiler's own words are on standard error."""


class StartFailed(ClusterError):
    """The cluster did not come up, and is gone again."""


class CommandFailed(ClusterError):
    """A command given to the cluster was refused; the message holds what it wrote."""


class LeftBehind(ClusterError):
    """Names everything that a closed cluster left on the host."""
