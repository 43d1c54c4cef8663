"""Whether each status that an operator wrote was about the spec that it was written for, from the audit log."""

import json
from typing import Any

from tests.cluster.cluster import Cluster

Plain = dict[str, Any]


def assert_honest(cluster: Cluster) -> None:
    """Every status write that the API server took names the generation that the object then had, in the status and in
    each condition: so Ready is never True for an older spec.
    """
    told = written(cluster)
    assert told, "no status was written"
    wrong = [one["metadata"] | {"status": one["status"]} for one in told if not is_honest(one)]
    assert not wrong


def written(cluster: Cluster) -> list[Plain]:
    """Each EmbeddingService as it was once its status had been written by an operator."""
    lines = cluster.audit_log.read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines if '"subresource":"status"' in line and "embeddingservices" in line]
    return [one["responseObject"] for one in found if is_taken(one)]


def is_taken(record: Plain) -> bool:
    """Whether a record of the audit log is of an operator's write that the API server took."""
    by_operator = "fieldManager=embedfleet-operator" in record["requestURI"]
    return record["verb"] == "patch" and by_operator and record.get("responseStatus", {}).get("code", 500) < 300


def is_honest(service: Plain) -> bool:
    """Whether what is told of `service` is about its generation."""
    generation, told = service["metadata"]["generation"], service["status"]
    about = [told["observedGeneration"], *(one["observedGeneration"] for one in told["conditions"])]
    return set(about) == {generation}
