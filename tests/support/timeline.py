"""Where the time goes from `kubectl apply` to the first vector: from the API server's audit log, and the pod's own."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.support.rooms import Room

Plain = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """Something that was reached, seconds after the manifest reached the API server."""

    what: str
    seconds: float


def timeline(made: Room, first_vector: datetime) -> list[Step]:
    """The steps of the room's service, which was made once and has one pod; its cluster must be one of ours."""
    asked = list(_audited(made))
    (pod,) = made.pods()
    name = pod["metadata"]["name"]
    began = _first(asked, "embeddingservices", made.name, "create", "patch")
    reached = {
        "the operator has written the Deployment": _first(asked, "deployments", made.name, "create", "patch"),
        "the pod is made": _first(asked, "pods", None, "create"),
        "the pod has a node": _first(asked, "pods/binding", name, "create"),
        "its weights are in the store (init container)": _line(made, name, "fetch", "is in the store", last=True),
        "the server listens": _line(made, name, "server", "listening url="),
        "all models are loaded": _line(made, name, "server", "ready service="),
        "the service is Ready": _told_ready(asked, made),
        "the first vector": first_vector,
    }
    return [Step(what, (when - began).total_seconds()) for what, when in reached.items()]


def table(steps: list[Step]) -> str:
    """As Markdown."""
    rows = [f"| {step.what} | {step.seconds:.1f} |" for step in steps]
    return "\n".join(["| reached | seconds after `kubectl apply` |", "|---|---|", *rows])


def _audited(made: Room) -> Iterator[Plain]:
    """Every finished write in the namespace that the API server took."""
    own = made.ground.own
    assert own is not None, "only a cluster of our own tells of every request"
    for line in own.audit_log.read_text(encoding="utf-8").splitlines():
        if f'"namespace":"{made.namespace}"' in line and '"stage":"ResponseComplete"' in line:
            found = json.loads(line)
            if found["responseStatus"]["code"] < 300:
                yield found


def _first(asked: list[Plain], resource: str, name: str | None, *verbs: str) -> datetime:
    for one in asked:
        about = one["objectRef"]
        kind = "/".join(filter(None, [about["resource"], about.get("subresource")]))
        mine = name in (None, about.get("name")) and about.get("name") != "client"
        if kind == resource and one["verb"] in verbs and mine:
            return _time(one["stageTimestamp"])
    raise AssertionError(f"nobody wrote {resource} {name}")


def _told_ready(asked: list[Plain], made: Room) -> datetime:
    """The last change of the service's status: by then it had just become Ready."""
    about = [one for one in asked if one["objectRef"]["resource"] == "embeddingservices"]
    return _time([one for one in about if one["objectRef"].get("subresource") == "status"][-1]["stageTimestamp"])


def _line(made: Room, pod: str, container: str, words: str, *, last: bool = False) -> datetime:
    """When a container wrote its first (or last) line with these words."""
    lines = made.kubectl("logs", pod, "-c", container, "--timestamps", "--tail=-1").splitlines()
    found = [line for line in lines if words in line]
    return _time(found[-1 if last else 0].split()[0])


def _time(text: str) -> datetime:
    whole, _, rest = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{rest[:6] or '0'}+00:00")
