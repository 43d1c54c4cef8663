"""What is seen of a service in the cluster: frozen values, read tolerantly from what the API server and pods answer.

Nothing here judges. An answer that lacks a field, or has one of another type, gives a value without it.
"""

from embedfleet_operator.observed.capacity import Capacity
from embedfleet_operator.observed.events import Event
from embedfleet_operator.observed.pods import Container, Ended, Pod
from embedfleet_operator.observed.server import Finding, ModelState, ServerState
from embedfleet_operator.observed.snapshot import Claim, Observed, Refusal, Secret, spec
from embedfleet_operator.observed.workload import Condition, Deployment, ReplicaSet, Way

__all__ = [
    "Capacity",
    "Claim",
    "Condition",
    "Container",
    "Deployment",
    "Ended",
    "Event",
    "Finding",
    "ModelState",
    "Observed",
    "Pod",
    "Refusal",
    "ReplicaSet",
    "Secret",
    "ServerState",
    "Way",
    "spec",
]
