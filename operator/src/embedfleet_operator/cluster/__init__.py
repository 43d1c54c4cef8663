"""The only room that asks the API server for anything or changes anything there; kopf's watch is beside it."""

from embedfleet_operator.cluster.cluster import Cluster
from embedfleet_operator.cluster.transport import HttpTransport, Transport

__all__ = ["Cluster", "HttpTransport", "Transport"]
