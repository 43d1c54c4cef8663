"""Pods and their containers, as the API server gives them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from embedfleet.api.termination import Termination, parse
from embedfleet_operator import names
from embedfleet_operator.observed import plain
from embedfleet_operator.observed.plain import Plain
from embedfleet_operator.observed.server import ServerState
from embedfleet_operator.observed.workload import Condition, conditions

State = Literal["Waiting", "Running", "Terminated", "Unknown"]


@dataclass(frozen=True, slots=True)
class Ended:
    """One end of a container."""

    exit_code: int
    reason: str = ""
    message: str = ""

    @property
    def termination(self) -> Termination | None:
        """What the container itself left as its cause, if it did."""
        return parse(self.message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container of a pod."""

    name: str
    is_init: bool = False
    state: State = "Unknown"
    reason: str = ""
    """Why it waits."""
    message: str = ""
    ready: bool = False
    restarts: int = 0
    ended: Ended | None = None
    """How it ended: now, or the time before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A server pod."""

    uid: str
    name: str
    replica_set: str | None = None
    """Uid of the ReplicaSet that made it."""
    phase: str = "Unknown"
    reason: str = ""
    message: str = ""
    node: str | None = None
    address: str | None = None
    created: datetime | None = None
    leaving: bool = False
    touched: str | None = None
    """Generation of the batching values after whose change the operator last touched it."""
    conditions: tuple[Condition, ...] = ()
    containers: tuple[Container, ...] = ()
    server: ServerState | None = None
    """What its `/state` answered; None when it did not."""

    @property
    def is_ready(self) -> bool:
        """Requests are sent to it."""
        return self._holds("Ready") and not self.leaving

    @property
    def unschedulable(self) -> Condition | None:
        """Why the scheduler found no node, if it says so."""
        found = (one for one in self.conditions if one.type == "PodScheduled" and one.status == "False")
        return next((one for one in found if one.reason == "Unschedulable"), None)

    def _holds(self, condition: str) -> bool:
        return any(one.type == condition and one.status == "True" for one in self.conditions)


def pod(tree: Plain, server: ServerState | None = None) -> Pod:
    """A pod as the API server gives it, with what its `/state` answered."""
    status = plain.mapping(tree, "status")
    return Pod(
        uid=plain.text(tree, "metadata", "uid") or "",
        name=plain.text(tree, "metadata", "name") or "",
        replica_set=plain.owner_uid(tree, "ReplicaSet"),
        phase=plain.text(status, "phase") or "Unknown",
        reason=plain.text(status, "reason") or "",
        message=plain.text(status, "message") or "",
        node=plain.text(tree, "spec", "nodeName"),
        address=plain.text(status, "podIP"),
        created=plain.time(tree, "metadata", "creationTimestamp"),
        leaving=plain.text(tree, "metadata", "deletionTimestamp") is not None,
        touched=plain.text(tree, "metadata", "annotations", names.BATCHING),
        conditions=conditions(tree),
        containers=_containers(status),
        server=server,
    )


def _containers(status: Plain) -> tuple[Container, ...]:
    inits = [_container(entry, is_init=True) for entry in plain.entries(status, "initContainerStatuses")]
    return (*inits, *(_container(entry, is_init=False) for entry in plain.entries(status, "containerStatuses")))


def _container(entry: Plain, *, is_init: bool) -> Container:
    waiting = plain.mapping(entry, "state", "waiting")
    return Container(
        name=plain.text(entry, "name") or "",
        is_init=is_init,
        state=_state(entry),
        reason=plain.text(waiting, "reason") or "",
        message=plain.text(waiting, "message") or "",
        ready=plain.flag(entry, "ready"),
        restarts=plain.number(entry, "restartCount") or 0,
        ended=_ended(entry, "state") or _ended(entry, "lastState"),
    )


def _state(entry: Plain) -> State:
    for key, state in _STATES.items():
        if isinstance(plain.at(entry, "state", key), dict):
            return state
    return "Unknown"


_STATES: dict[str, State] = {"waiting": "Waiting", "running": "Running", "terminated": "Terminated"}


def _ended(entry: Plain, which: str) -> Ended | None:
    found = plain.mapping(entry, which, "terminated")
    if not found:
        return None
    return Ended(
        plain.number(found, "exitCode") or 0, plain.text(found, "reason") or "", plain.text(found, "message") or ""
    )
