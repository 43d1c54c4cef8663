"""A service's objects as an API server hands them out: plain mappings, with the fields that the operator reads."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from embedfleet.api import EmbeddingService
from embedfleet_operator import names
from embedfleet_operator.observed import Observed, events, pods, server, workload
from embedfleet_operator.plan import Plan
from embedfleet_operator.status import Facts

Plain = dict[str, Any]
NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
RENDERED = "0123456789"
COMMIT = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"


def stamp(seconds_ago: float = 0) -> str:
    """A time in Kubernetes' form."""
    return (NOW - timedelta(seconds=seconds_ago)).strftime("%Y-%m-%dT%H:%M:%SZ")


def service(generation: int = 1, **spec: Any) -> Plain:
    """An EmbeddingService of one model, two replicas."""
    models = [{"name": "m", "source": {"huggingFace": {"repo": "org/m", "revision": COMMIT}}}]
    metadata = {"name": "semantic", "namespace": "team-a", "uid": "s-1", "generation": generation}
    whole = {"models": models, "replicas": 2, **spec}
    return {"apiVersion": "embedfleet.dev/v1alpha1", "kind": "EmbeddingService", "metadata": metadata, "spec": whole}


def deployment(
    *,
    wanted: int = 2,
    replicas: int = 2,
    updated: int = 2,
    ready: int = 2,
    seen: bool = True,
    surge: int | str = "25%",
    revision: str = "1",
    rendered: str = RENDERED,
) -> Plain:
    """Its Deployment; `seen` is whether its controller has seen the newest spec."""
    annotations = {"deployment.kubernetes.io/revision": revision, names.RENDERED: rendered}
    counts = {"replicas": replicas, "updatedReplicas": updated, "readyReplicas": ready, "availableReplicas": ready}
    rolling = {"maxSurge": surge, "maxUnavailable": 0 if surge else 1}
    return {
        "metadata": {"name": "semantic", "uid": "d-1", "generation": 4, "annotations": annotations},
        "spec": {"replicas": wanted, "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling}},
        "status": {"observedGeneration": 4 if seen else 3, **counts},
    }


def replica_set(revision: str = "1", *, failure: str | None = None, config_map: str = "semantic-models-x") -> Plain:
    """A ReplicaSet of the Deployment, uid `r-REVISION`; `failure` is why it cannot make pods."""
    conditions = [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": failure}]
    sources = [{"configMap": {"name": config_map}}]
    template = {"spec": {"volumes": [{"name": "settings", "projected": {"sources": sources}}]}}
    return {
        "metadata": {
            "name": f"semantic-{revision}",
            "uid": f"r-{revision}",
            "annotations": {"deployment.kubernetes.io/revision": revision},
        },
        "spec": {"replicas": 2, "template": template},
        "status": {"replicas": 2, "conditions": conditions if failure else []},
    }


def pod(
    name: str = "p-1",
    *,
    revision: str = "1",
    ready: bool = True,
    leaving: bool = False,
    unschedulable: str | None = None,
    since: float = 0,
    statuses: Sequence[Plain] | None = None,
    init: Sequence[Plain] = (),
    **status: Any,
) -> Plain:
    """A pod of ReplicaSet `r-REVISION`; `unschedulable` is the scheduler's message, since so many seconds."""
    owner = {"kind": "ReplicaSet", "uid": f"r-{revision}", "controller": True}
    metadata: Plain = {"name": name, "uid": name, "ownerReferences": [owner], "creationTimestamp": stamp(since)}
    if leaving:
        metadata["deletionTimestamp"] = stamp()
    conditions: list[Plain] = [{"type": "Ready", "status": "True" if ready else "False"}]
    if unschedulable is not None:
        scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": unschedulable}
        conditions.append({**scheduled, "lastTransitionTime": stamp(since)})
    running = [{"name": "server", "ready": ready, "state": {"running": {}}, "restartCount": 0}]
    containers = statuses if statuses is not None else [] if unschedulable else running
    phase = "Pending" if unschedulable else "Running"
    told = {"phase": phase, "conditions": conditions, "containerStatuses": list(containers)}
    return {"metadata": metadata, "spec": {}, "status": {**told, "initContainerStatuses": list(init), **status}}


def waiting(reason: str, message: str = "", name: str = "server") -> Plain:
    """A container that waits."""
    return {
        "name": name,
        "ready": False,
        "state": {"waiting": {"reason": reason, "message": message}},
        "restartCount": 0,
    }


def ended(reason: str = "Error", message: str = "", code: int = 1, name: str = "server") -> Plain:
    """A container that has ended and is about to be started again."""
    last = {"terminated": {"reason": reason, "message": message, "exitCode": code}}
    state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}}
    return {"name": name, "ready": False, "state": state, "lastState": last, "restartCount": 3}


def answer(generation: int = 1, state: str = "Ready", **fields: Any) -> Plain:
    """A pod's answer to `/state`, with one model."""
    figures = {"task": "Dense", "dimensions": 384, "max_tokens": 256, "precision": "bfloat16", "device": "cuda:0"}
    model: Plain = {"name": "m", "state": state, "required": True, "cause": None, "revision": COMMIT, **figures}
    model |= {"fingerprint": "f" * 64} | fields.pop("model", {})
    return {"generation": generation, "ready": True, "models": [model], "health": [], **fields}


def event(about: str, reason: str, message: str, seconds_ago: float = 0) -> Plain:
    """A warning about an object."""
    return {
        "involvedObject": {"uid": about},
        "reason": reason,
        "message": message,
        "type": "Warning",
        "lastTimestamp": stamp(seconds_ago),
    }


def seen(
    given: Plain | None = None,
    *,
    apart: Plain | None = None,
    sets: Sequence[Plain] | None = None,
    server_pods: Sequence[Plain] | None = None,
    answers: dict[str, Plain] | None = None,
    told: Sequence[Plain] = (),
    **others: Any,
) -> Observed:
    """What one pass sees; by default a service that is well, with two pods that answer."""
    given = service() if given is None else given
    found = [pod("p-1"), pod("p-2")] if server_pods is None else server_pods
    generation = given["metadata"]["generation"]
    replies = {name: answer(generation) for name in ("p-1", "p-2")} if answers is None else answers
    states = {name: server.server_state(reply) for name, reply in replies.items()}
    return Observed(
        service=given,
        deployment=workload.deployment(deployment() if apart is None else apart),
        replica_sets=tuple(workload.replica_set(one) for one in ([replica_set()] if sets is None else sets)),
        pods=tuple(pods.pod(one, states.get(one["metadata"]["name"])) for one in found),
        events=tuple(events.event(one) for one in told),
        **others,
    )


def facts(given: Observed | None = None, **others: Any) -> Facts:
    """The input of the status tables; by default of a service that is well."""
    found = seen() if given is None else given
    whole: dict[str, Any] = {
        "observed": found,
        "service": EmbeddingService.model_validate(found.service),
        "plan": Plan("Surge", "Settled"),
        "rendered": RENDERED,
    }
    return Facts(**(whole | others))
