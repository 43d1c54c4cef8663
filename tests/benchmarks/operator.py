"""The operator with 100 services and 1,000 pods on a real API server: how soon, how quiet, how large.

Times are those of the API server's audit log, from the receipt of the user's request to the last answer to the
operator's, so neither kubectl nor the watching is in them. The pods are kwok's, their servers a proxy that answers
`/state` for each.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from tests.benchmarks.report import Goal, Section, show
from tests.cluster.cluster import Cluster
from tests.support.cluster_objects import answer
from tests.support.hollow_servers import HollowServers
from tests.support.operating import operating
from tests.support.operators import WRITES, manifest_of, until

Plain = dict[str, Any]
Say = Callable[[str], None]
CRDS = Path(__file__).resolve().parents[2] / "crds"
SERVICES, PODS = 100, 10
RESYNC_SECONDS = 10.0
"""Ten of them are to be waited for; less than in earnest (25 s), so that the operator has more to do."""
_NODES = 25
_REPEAT = 5
_RESYNCS = 10
_LOOK_SECONDS = 2
_KINDS = 7  # ServiceAccount, two ConfigMaps, Service, budget, policy, Deployment
_USER = "operator-measured"
_READY_SECONDS, _CHILDREN_SECONDS, _EDIT_SECONDS, _PLANE_SECONDS, _MEMORY_MIB = 60, 1, 1, 10, 200


@dataclass
class Fleet:
    """The cluster, the operator in it, and what the pods' servers answer."""

    cluster: Cluster
    say: Say
    plane_seconds: float
    process: psutil.Process = field(init=False)
    generations: dict[str, int] = field(default_factory=dict)
    """Of the batching values that the pods at these addresses run, where it is not the first."""

    def answer(self, address: str) -> Plain:
        """What a pod says of itself."""
        return answer(self.generations.get(address, 1))

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """What kubectl says."""
        return self.cluster.kubectl(*arguments, stdin=stdin)

    def create(self, *manifests: Plain) -> None:
        """Make these objects in one go."""
        self.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}))

    def items(self, kind: str, *more: str) -> list[Plain]:
        """All objects of a type."""
        found: list[Plain] = json.loads(self.kubectl("get", kind, "-o", "json", *more))["items"]
        return found

    def audited(self, since: int = 0) -> list[Plain]:
        """Every finished request after the first `since` bytes of the log, in order."""
        with self.cluster.audit_log.open("rb") as log:
            log.seek(since)
            found = [json.loads(line) for line in log if line.endswith(b"\n")]
        return [one for one in found if one["stage"] == "ResponseComplete" and "objectRef" in one]

    def here(self) -> int:
        """Where the log ends now."""
        return self.cluster.audit_log.stat().st_size

    def writes(self, since: int = 0) -> list[Plain]:
        """What the operator wrote, but for its Lease."""
        return [
            one
            for one in self.audited(since)
            if one["user"]["username"] == _USER and one["verb"] in WRITES and one["objectRef"]["resource"] != "leases"
        ]


def measure(say: Say, services: int = SERVICES, resync_seconds: float = RESYNC_SECONDS) -> Section:
    """All figures, in a cluster of their own."""
    section = Section(
        f"Operator: {services} services, {services * PODS:,} pretended pods, on a real API server", ("what", "value")
    )
    with _started(say, resync_seconds) as fleet:
        _plane(fleet, section)
        _one(fleet, section)
        _many(fleet, section, services)
        _quiet(fleet, section, resync_seconds)
        _edits(fleet, section)
        _memory(fleet, section)
    return section


@contextmanager
def _started(say: Say, resync_seconds: float) -> Iterator[Fleet]:
    began, told = time.monotonic(), dict[str, float]()

    def hear(line: str) -> None:
        told[line.split("s", 1)[1].strip()] = time.monotonic() - began

    with Cluster(hollow=_NODES, say=hear) as cluster:
        fleet = Fleet(cluster, say, told["controllers"])
        fleet.kubectl("apply", "-f", str(CRDS))
        fleet.kubectl("wait", "crd", "--all", "--for=condition=Established", "--timeout=60s")
        with HollowServers(fleet.answer) as servers:
            user = cluster.kubeconfig_for(_USER, ["system:masters"])
            with operating(user, servers.url, resync_seconds) as running:
                fleet.process = psutil.Process(running.pid)
                until(lambda: fleet.items("lease", "-n", "default"))
                yield fleet


def _plane(fleet: Fleet, section: Section) -> None:
    seconds = fleet.plane_seconds
    section.rows.append(("control plane: start to controllers at work", f"{seconds:.1f} s"))
    wanted = f"control plane for tests ready <= {_PLANE_SECONDS} s"
    section.goals.append(Goal(wanted, f"{seconds:.1f} s", seconds <= _PLANE_SECONDS))


def _one(fleet: Fleet, section: Section) -> None:
    """One service after the other, while nothing else is going on."""
    seconds = []
    for number in range(_REPEAT):
        name, start = f"alone-{number}", fleet.here()
        fleet.create(manifest_of(name, replicas=PODS))
        until(lambda name=name: fleet.items("deployments", "-l", f"embedfleet.dev/service={name}"))  # type: ignore[misc]
        seconds.append(_to_children(fleet.audited(start), [name]))
    fleet.kubectl("delete", "embed", "--all")
    until(lambda: not fleet.items("pods"), 120)
    worst = max(seconds)
    section.rows.append((f"apply to all {_KINDS} children created", f"{_span(seconds)}"))
    wanted = f"apply to all children created <= {_CHILDREN_SECONDS} s"
    section.goals.append(Goal(wanted, f"{worst:.2f} s at most", worst <= _CHILDREN_SECONDS))


def _many(fleet: Fleet, section: Section, services: int) -> None:
    """All at once, until each status says Ready."""
    start, names = fleet.here(), [f"many-{number}" for number in range(services)]
    began = fleet.process.cpu_times()
    fleet.create(*(manifest_of(name, replicas=PODS) for name in names))
    until(lambda: _all_ready(fleet, services), 300)
    used = fleet.process.cpu_times()
    log = fleet.audited(start)
    made = max(_at(one) for one in log if _is_made(one))
    pods = max(_at(one) for one in log if one["objectRef"].get("subresource") == "status" and _about(one, "pods"))
    told = max(_at(one) for one in fleet.writes(start) if _about(one, "embeddingservices"))
    first = min(_at(one) for one in log if one["verb"] == "create" and _about(one, "embeddingservices"))
    behind = max(0.0, (told - pods).total_seconds())
    asked = [one for one in log if one["user"]["username"] == _USER]
    section.rows += [
        (
            f"{services} services created: to all {_KINDS * services} children",
            f"{(made - first).total_seconds():.1f} s",
        ),
        ("… to the last pod ready (kwok)", f"{(pods - first).total_seconds():.1f} s"),
        ("… to the last status Ready", f"{(told - first).total_seconds():.1f} s"),
        ("requests of the operator meanwhile", f"{len(asked):,}, {len(fleet.writes(start)):,} of them writes"),
        ("processor time of the operator meanwhile", f"{used.user + used.system - began.user - began.system:.1f} s"),
    ]
    wanted = f"all statuses Ready within {_READY_SECONDS} s of the pods"
    section.goals.append(Goal(wanted, f"{behind:.1f} s", behind <= _READY_SECONDS))


def _quiet(fleet: Fleet, section: Section, resync_seconds: float) -> None:
    """Ten looks at everything."""
    _looks(fleet, fleet.here(), 2)  # what the last events asked for is done
    start, began, since = fleet.here(), fleet.process.cpu_times(), time.monotonic()
    _looks(fleet, start, _RESYNCS)
    used, lasted = fleet.process.cpu_times(), time.monotonic() - since
    share = (used.user + used.system - began.user - began.system) / lasted
    writes = fleet.writes(start)
    asked = [one for one in fleet.audited(start) if one["user"]["username"] == _USER]
    section.rows += [
        (f"reads in {_RESYNCS} resyncs, {resync_seconds:.0f} s apart", f"{len(asked):,}"),
        ("processor of the operator meanwhile", f"{100 * share:.0f} % of a core"),
    ]
    section.goals.append(Goal(f"0 writes in {_RESYNCS} resyncs", str(len(writes)), not writes))
    for one in writes[:3]:
        section.notes.append(f"written when quiet: {one['verb']} {one['requestURI']}")


def _looks(fleet: Fleet, start: int, count: int) -> None:
    """Until the operator has listed the services so many more times."""

    marks = (_USER.encode(), b'"verb":"list"', b'"resource":"embeddingservices"', b'"stage":"ResponseComplete"')

    def seen() -> int:  # without reading each entry whole, which would take the machine from what is measured
        with fleet.cluster.audit_log.open("rb") as log:
            log.seek(start)
            return sum(all(mark in line for mark in marks) for line in log)

    while seen() <= count:  # one more than asked for: what the last one asked for is done by then
        time.sleep(_LOOK_SECONDS)


def _edits(fleet: Fleet, section: Section) -> None:
    """Batching values of one service among all, edited again and again: to the ConfigMap, and to Ready again."""
    written, ready = [], []
    name = "many-0"
    pods = [one["status"]["podIP"] for one in fleet.items("pods", "-l", f"embedfleet.dev/service={name}")]
    for number in range(_REPEAT):
        start = fleet.here()
        change = json.dumps({"spec": {"batching": {"maxBatchSize": 40 + number}}})
        fleet.kubectl("patch", "embed", name, "--type=merge", "-p", change)
        until(lambda start=start: any(_about(one, "configmaps") for one in fleet.writes(start)))  # type: ignore[misc]
        fleet.generations.update(dict.fromkeys(pods, number + 2))
        until(lambda: _is_ready(json.loads(fleet.kubectl("get", "embed", name, "-o", "json"))))
        log = fleet.audited(start)
        asked = min(_received(one) for one in log if one["verb"] == "patch" and _about(one, "embeddingservices"))
        changed = next(_at(one) for one in fleet.writes(start) if _about(one, "configmaps"))
        told = max(_at(one) for one in fleet.writes(start) if _about(one, "embeddingservices"))
        written.append((changed - asked).total_seconds())
        ready.append((told - asked).total_seconds())
    section.rows += [
        ("one edit of batching values: to the ConfigMap", _span(written)),
        (f"… to Ready again, {PODS} pods touched and asked", _span(ready)),
    ]
    wanted = f"one edit among all reconciled <= {_EDIT_SECONDS} s"
    section.goals.append(Goal(wanted, f"{max(written):.2f} s at most", max(written) <= _EDIT_SECONDS))


def _memory(fleet: Fleet, section: Section) -> None:
    status = Path(f"/proc/{fleet.process.pid}/status").read_text(encoding="utf-8")
    peak = next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    now = fleet.process.memory_info().rss / 2**20
    section.rows.append(("resident size of the operator at the end, at most", f"{now:.0f} MiB, {peak:.0f} MiB"))
    section.goals.append(Goal(f"operator's resident size <= {_MEMORY_MIB} MiB", f"{peak:.0f} MiB", peak <= _MEMORY_MIB))


def _all_ready(fleet: Fleet, count: int) -> bool:
    time.sleep(_LOOK_SECONDS)  # kubectl itself takes a tenth of the machine
    found = [_is_ready(one) for one in fleet.items("embed")]
    fleet.say(f"  {sum(found)} of {count} are Ready")
    return len(found) == count and all(found)


def _is_ready(service: Plain) -> bool:
    status, generation = service.get("status", {}), service["metadata"]["generation"]
    found = [one for one in status.get("conditions", []) if one["type"] == "Ready" and one["status"] == "True"]
    return any(one["observedGeneration"] == generation for one in found)


def _to_children(log: list[Plain], names: list[str]) -> float:
    asked = min(_received(one) for one in log if one["verb"] == "create" and _about(one, "embeddingservices"))
    made = [_at(one) for one in log if _is_made(one) and one["objectRef"]["name"].startswith(tuple(names))]
    assert len(made) == _KINDS * len(names), f"{len(made)} children of {names}"
    return (max(made) - asked).total_seconds()


def _is_made(one: Plain) -> bool:
    """The operator's apply of an object that was not there."""
    told = one["user"]["username"], one["verb"], one["responseStatus"]["code"]
    return told == (_USER, "patch", 201)


def _about(one: Plain, resource: str) -> bool:
    return bool(one["objectRef"]["resource"] == resource)


def _at(one: Plain) -> datetime:
    return datetime.fromisoformat(one["stageTimestamp"])


def _received(one: Plain) -> datetime:
    return datetime.fromisoformat(one["requestReceivedTimestamp"])


def _span(seconds: list[float]) -> str:
    return f"{median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"


def main() -> None:
    """This part by itself."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks.operator", description=__doc__)
    parser.add_argument("--services", type=int, default=SERVICES, help="of 10 pods each (%(default)s)")
    parser.add_argument("--resync-seconds", type=float, default=RESYNC_SECONDS, help="between looks (%(default)s)")
    given = parser.parse_args()
    show(measure(print, given.services, given.resync_seconds))


if __name__ == "__main__":
    main()
