"""One pass on one service: observe, decide, render, apply what differs, tell."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from embedfleet_operator import names, render, rollout, status
from embedfleet_operator.apply import FOR_A_WHILE, Applied, Applier, Repair
from embedfleet_operator.cluster import Cluster
from embedfleet_operator.cluster.cluster import event
from embedfleet_operator.errors import CannotRender, Refused
from embedfleet_operator.observe import Observer, Seen
from embedfleet_operator.observed import plain, workload
from embedfleet_operator.plan import Plan
from embedfleet_operator.status import Facts, Notice

_LATE_SECONDS = 2.0
"""Until pods that have yet to take up batching values are asked again: nothing in the cluster says when they have."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a pass went."""

    again_seconds: float | None = None
    """After which another is wanted, though nothing may have changed."""
    failed: bool = False
    """The API server was not able to take a write: another pass after a back-off."""


class Reconciler:
    """Passes over services; `identity` stands in their events."""

    def __init__(self, cluster: Cluster, observer: Observer, identity: str) -> None:
        self._cluster = cluster
        self._observer = observer
        self._applier = Applier(cluster)
        self._identity = identity

    async def reconcile(self, namespace: str, name: str, now: datetime) -> Outcome:
        """Bring one service nearer to its spec. Raises `Unreachable`, `Refused`, `NotLeading`; `now` in UTC."""
        tree = await self._cluster.service(namespace, name)
        if tree is None or plain.text(tree, "metadata", "deletionTimestamp"):
            return Outcome()  # Kubernetes collects its children
        seen, plan = await self._decide(await self._observer.look(tree), now)
        wanted, obstacle = _render(seen, plan)
        applied = await self._applier.apply(seen, wanted)
        facts = _facts(seen, plan, applied, obstacle)
        await self._tell_repairs(tree, applied.repaired, now)
        await self._tell(facts, now)
        if wanted and not applied.is_partial:
            await self._applier.remove_leftovers(seen, wanted)
            await self._touch(facts)
        late = _LATE_SECONDS if facts.late_pods else None
        waits = [seconds for seconds in (plan.look_again_seconds if plan else None, late) if seconds is not None]
        return Outcome(min(waits, default=None), applied.must_retry)

    async def _decide(self, seen: Seen, now: datetime) -> tuple[Seen, Plan | None]:
        """How new pods are to take the place of old ones; nodes are looked at only when a pod finds none."""
        if seen.service is None:
            return seen, None
        progress = rollout.progress(seen.service, seen.observed, now)
        if progress.is_rolling and progress.waiting_seconds is not None:
            seen = await self._observer.with_capacity(seen)
            progress = replace(progress, ever_fits=seen.observed.capacity.ever_fits)
        return seen, rollout.decide(progress)

    async def _tell(self, facts: Facts, now: datetime) -> None:
        """The events first: after a crash between the two they are made again under the same names."""
        tree = dict(facts.observed.service)
        old = status.read(tree)
        new = status.status(facts, old, now)
        change = status.changes(tree, new)
        if change is None:
            return
        for notice in status.transitions(old.conditions, new.conditions):
            await self._record(tree, notice, _event_name(tree, notice.reason), now)
        await self._cluster.tell(tree, change)

    async def _tell_repairs(self, tree: Mapping[str, Any], repaired: Sequence[Repair], now: datetime) -> None:
        """An event for each child and who changed it, once as long as Kubernetes keeps events (an hour)."""
        for one in repaired:
            words = f"{one.kind} {one.name} was changed, last by {one.by}, and is put back; change the spec instead"
            name = f"{tree['metadata']['name']}.{names.digest(f'{one.uid} {one.by}')}"
            await self._record(tree, Notice("Warning", "Repaired", words), name, now)

    async def _record(self, tree: Mapping[str, Any], notice: Notice, name: str, now: datetime) -> None:
        """An event; one that will never be taken keeps nothing else from being told."""
        told = {"type": notice.kind, "reason": notice.reason, "note": notice.message}
        try:
            await self._cluster.record(event(tree, name, self._identity, told, now))
        except Refused as refusal:
            if refusal.code in FOR_A_WHILE:
                raise
            _log.warning("%s: the event %s is refused: %s", tree["metadata"]["name"], notice.reason, refusal)

    async def _touch(self, facts: Facts) -> None:
        """Running pods whose server has yet to take up the batching values; others mount the newest as they start."""
        running = [pod for pod in facts.observed.pods if pod.phase == "Running"]
        generation = facts.observed.generation
        for pod in rollout.untouched(running, generation):
            await self._cluster.touch(
                facts.observed.service["metadata"]["namespace"], pod.name, rollout.touch(generation)
            )


def _event_name(tree: Mapping[str, Any], reason: str) -> str:
    """The same for the same transition: of this object, from this status, to this reason."""
    metadata = tree["metadata"]
    transition = [metadata["uid"], metadata["generation"], tree.get("status"), reason]
    return f"{metadata['name']}.{names.digest(json.dumps(transition, sort_keys=True))}"


def _render(seen: Seen, plan: Plan | None) -> tuple[list[render.Object], CannotRender | None]:
    """The objects there are to be; none, and why, when none can come of the spec."""
    if seen.service is None or plan is None:
        return [], None
    try:
        return render.objects(seen.service, seen.site, plan.way), None
    except CannotRender as obstacle:
        return [], obstacle


def _facts(seen: Seen, plan: Plan | None, applied: Applied, obstacle: CannotRender | None) -> Facts:
    deployment = workload.deployment(applied.deployment) if applied.deployment else seen.observed.deployment
    observed = replace(
        seen.observed,
        deployment=deployment,
        refusals=applied.refusals,
        foreign=applied.foreign,
        missing_apis=tuple(render.missing_apis(seen.service, seen.site)) if seen.service else (),
    )
    return Facts(
        observed=observed,
        service=seen.service,
        problems=seen.problems,
        obstacle=obstacle,
        plan=plan,
        rendered=applied.rendered,
    )
