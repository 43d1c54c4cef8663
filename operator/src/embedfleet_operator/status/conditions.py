"""The conditions: a table from what is observed to statements, each with a reason and what to do."""

from collections.abc import Sequence
from dataclasses import dataclass

from embedfleet.api.status import ConditionStatus
from embedfleet_operator.status import states
from embedfleet_operator.status.causes import Finding
from embedfleet_operator.status.facts import Facts


@dataclass(frozen=True, slots=True)
class Statement:
    """A condition before it has a time and a generation."""

    type: str
    status: ConditionStatus
    reason: str
    message: str


def statements(facts: Facts, findings: Sequence[Finding]) -> list[Statement]:
    """Every condition, in the order of `states.TYPES`; `findings` are those of `diagnose`."""
    blocking = next((finding for finding in findings if finding.cause.blocks), None)
    way = _way_on(facts)
    return [
        _ready(facts, blocking, way),
        _available(facts, blocking),
        _progressing(facts, blocking, way),
        _blocked(facts, blocking),
        _loaded(facts, findings),
        _degraded(findings),
    ]


def _way_on(facts: Facts) -> tuple[str, str] | None:
    """Where the pods are on their way to the newest spec, reason and words; None once they are there."""
    if facts.wanted == 0:
        return None
    if not facts.is_applied or facts.observed.refusals:
        return "Applying", "the newest spec is being applied"
    if facts.is_rolling:
        return _rolling(facts)
    if not facts.is_rolled_out:
        late = "; the Deployment has yet to count them" if len(facts.ready_pods) >= facts.wanted else ""
        return ("PodsNotReady" if facts.ready_pods else "Starting"), f"{_counts(facts)}{late}"
    if facts.late_pods:
        words = f"generation {facts.observed.generation} of the batching values has yet to reach"
        return "SettingsPending", f"{words} {', '.join(facts.late_pods)}"
    return None


def _rolling(facts: Facts) -> tuple[str, str]:
    plan = facts.plan
    counts = f"{len(facts.observed.new_pods)} new, {len(facts.observed.old_pods)} old pods; {_counts(facts)}"
    if plan is not None and plan.way == "DrainFirst":
        return "DrainingFirst", f"{_WHY_DRAIN[plan.why]}: an old pod leaves before its successor starts; {counts}"
    if plan is not None and plan.why == "WaitingForCapacity":
        return "WaitingForCapacity", f"a new pod finds no room yet; {counts}"
    return "RollingOut", counts


_WHY_DRAIN = {
    "NoRoom": "there is no room for one more pod",
    "SingleNodeVolume": "a claim can be mounted on one node only",
    "AsAsked": "rollout.strategy is DrainFirst",
}


def _ready(facts: Facts, blocking: Finding | None, way: tuple[str, str] | None) -> Statement:
    if _is_off(facts):
        return Statement(states.READY, "False", *_off(facts))
    if _stopped(facts) and blocking is not None:
        return Statement(states.READY, "False", blocking.reason, blocking.message)
    if way is None:
        count = len(facts.service.spec.models) if facts.service else 0
        words = f"{_counts(facts)}, each with {count} {'model' if count == 1 else 'models'}"
        return _by(blocking) if blocking is not None else Statement(states.READY, "True", "Serving", words)
    return _by(blocking) if blocking is not None else Statement(states.READY, "False", *way)


def _by(finding: Finding) -> Statement:
    return Statement(states.READY, "False", finding.reason, finding.message)


def _stopped(facts: Facts) -> bool:
    """The newest spec was not applied and will not be as things are."""
    return facts.service is None or facts.obstacle is not None


def _is_off(facts: Facts) -> bool:
    return facts.wanted == 0 and not _stopped(facts)


def _off(facts: Facts) -> tuple[str, str]:
    if facts.service is not None and facts.service.spec.suspend:
        return "Suspended", "spec.suspend is true: there are to be no pods"
    return "ScaledToZero", "spec.replicas is 0: there are to be no pods"


def _available(facts: Facts, blocking: Finding | None) -> Statement:
    if facts.ready_pods:
        return Statement(states.AVAILABLE, "True", "PodsReady", _counts(facts))
    if _is_off(facts):
        return Statement(states.AVAILABLE, "False", *_off(facts))
    if blocking is not None:
        return Statement(states.AVAILABLE, "False", blocking.reason, blocking.message)
    return Statement(states.AVAILABLE, "False", "NoPods", _counts(facts))


def _progressing(facts: Facts, blocking: Finding | None, way: tuple[str, str] | None) -> Statement:
    if _is_off(facts):
        return Statement(states.PROGRESSING, "False", *_off(facts))
    if way is not None and way[0] in ("DrainingFirst", "WaitingForCapacity"):
        return Statement(states.PROGRESSING, "True", *way)  # the want of room is known and acted upon
    if blocking is not None:
        return Statement(states.PROGRESSING, "False", blocking.reason, blocking.message)
    if way is None:
        return Statement(states.PROGRESSING, "False", "Serving", _counts(facts))
    return Statement(states.PROGRESSING, "True", *way)


def _blocked(facts: Facts, blocking: Finding | None) -> Statement:
    held = blocking is not None and not facts.is_applied and bool(facts.observed.pods)
    if not facts.is_rolling and not held:
        return Statement(states.BLOCKED, "False", "NotRolling", "no rollout is under way")
    if blocking is None or not _holds_up(facts, blocking):
        return Statement(states.BLOCKED, "False", "RolloutProceeds", _counts(facts))
    return Statement(states.BLOCKED, "True", blocking.reason, blocking.message)


def _holds_up(facts: Facts, blocking: Finding) -> bool:
    """That a pod finds no node blocks a rollout once it has lasted; other causes do at once."""
    waits = blocking.reason in ("InsufficientGPU", "Unschedulable")
    return not waits or facts.plan is None or facts.plan.is_blocked


def _loaded(facts: Facts, findings: Sequence[Finding]) -> Statement:
    if not facts.answers:
        return Statement(states.LOADED, "Unknown", "NoAnswer", "no pod answers on its observation port")
    failed = next((finding for finding in findings if finding.reason == "ModelLoadFailed"), None)
    if failed is not None:
        return Statement(states.LOADED, "False", failed.reason, failed.message)
    pending = {
        model.name
        for _, answer in facts.answers
        for model in answer.models
        if model.required and model.state != "Ready"
    }
    if pending:
        return Statement(states.LOADED, "False", "ModelsLoading", f"not loaded yet: {', '.join(sorted(pending))}")
    return Statement(states.LOADED, "True", "ModelsReady", f"as {len(facts.answers)} pods say")


def _degraded(findings: Sequence[Finding]) -> Statement:
    found = [finding for finding in findings if not finding.cause.blocks]
    if not found:
        return Statement(states.DEGRADED, "False", "AsAsked", "nothing is less than was asked for")
    return Statement(states.DEGRADED, "True", found[0].reason, " ".join(finding.message for finding in found))


def _counts(facts: Facts) -> str:
    return f"{len(facts.ready_pods)} of {facts.wanted} pods take requests"
