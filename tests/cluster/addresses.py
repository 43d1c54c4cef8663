"""The addresses of a cluster of whole nodes: the same in each, since each has a network of its own.

The nodes hang on one bridge. Pods get the subnet of their node; Services get addresses that exist only in the rules
that kube-proxy writes.
"""

NODES_NETWORK = "10.77.0"
PODS_NETWORK = "10.244"
PODS = f"{PODS_NETWORK}.0.0/16"
HOLLOW_PODS = "10.200.0.0/16"
SERVICES = "10.96.0.0/16"
API_SERVICE = "10.96.0.1"
CONTROL_PLANE = f"{NODES_NETWORK}.1"
NOWHERE = "192.0.2.1"
"""What an API server without nodes gives as its address (RFC 5737): nobody dials it, and loopback is refused there."""


def node_address(index: int) -> str:
    """The address of node `index`, counted from 1; node 1 is the control plane's too."""
    return f"{NODES_NETWORK}.{index}"


def pods_of(index: int) -> str:
    """The subnet of the pods on node `index`."""
    return f"{PODS_NETWORK}.{index}.0/24"
