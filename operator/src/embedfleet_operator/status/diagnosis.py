"""Every cause that holds, the most important first."""

from collections.abc import Iterator

from embedfleet_operator import references
from embedfleet_operator.observed import Refusal, ReplicaSet
from embedfleet_operator.status.causes import RANK, Finding
from embedfleet_operator.status.facts import Facts
from embedfleet_operator.status.models import model_findings
from embedfleet_operator.status.pods import pod_findings

_TRANSIENT = (408, 409, 429, 500, 502, 503, 504)
"""Answers that a later pass cures by itself: conflicts, throttling, a server that is away."""


def diagnose(facts: Facts) -> tuple[Finding, ...]:
    """Every cause that holds, each reason once, the most important first."""
    found: dict[str, Finding] = {}
    for finding in _all(facts):
        found.setdefault(finding.reason, finding)
    return tuple(sorted(found.values(), key=lambda finding: RANK[finding.reason]))


def _all(facts: Facts) -> Iterator[Finding]:
    yield from _spec(facts)
    for refusal in facts.observed.refusals:
        yield from _refusal(refusal, facts)
    yield from _secrets(facts)
    if facts.wanted:
        yield from _pods(facts)
    yield from (Finding("ApiMissing", f"the cluster does not know {api}") for api in facts.observed.missing_apis)


def _pods(facts: Facts) -> Iterator[Finding]:
    if facts.observed.current is not None:
        yield from _replica_set(facts.observed.current)
    resource = facts.service.spec.gpu.resource_name if facts.service else ""
    for pod in facts.observed.pods:
        yield from pod_findings(pod, facts.observed.events, resource)
    yield from model_findings(facts)
    ready = len(facts.ready_pods)
    if 0 < ready < facts.wanted:
        yield Finding("FewerPods", f"{ready} of {facts.wanted} pods take requests")


def _spec(facts: Facts) -> Iterator[Finding]:
    if facts.service is None:
        yield Finding("NewerVersion", "; ".join(facts.problems) or "the object cannot be read")
    if facts.obstacle is not None:
        yield Finding(facts.obstacle.reason, facts.obstacle.message)
    if facts.observed.foreign:
        yield Finding("NameTaken", f"not this service's: {', '.join(facts.observed.foreign)}")


def _refusal(refusal: Refusal, facts: Facts) -> Iterator[Finding]:
    if refusal.code in _TRANSIENT:
        return
    words = f"{refusal.kind} {refusal.name}: {refusal.message}"
    if "exceeded quota" in refusal.message:
        yield Finding("QuotaExceeded", words)
    elif refusal.code in (401, 403):
        yield Finding("Forbidden", words)
    elif refusal.kind == "Deployment" and facts.service is not None and facts.service.spec.pod_template is not None:
        yield Finding("PodTemplateInvalid", words)
    else:
        yield Finding("ApplyRefused", words)


def _replica_set(current: ReplicaSet) -> Iterator[Finding]:
    for condition in current.conditions:
        if condition.type != "ReplicaFailure" or condition.status != "True":
            continue
        if "exceeded quota" in condition.message:
            yield Finding("QuotaExceeded", condition.message)
        elif "violates PodSecurity" in condition.message:
            yield Finding("PodSecurityRefused", condition.message)
        else:
            yield Finding("PodsRefused", condition.message)


def _secrets(facts: Facts) -> Iterator[Finding]:
    """What the spec's Secrets lack; of one that the operator has not read nothing is said."""
    needed = references.secrets(facts.service) if facts.service else {}
    for secret in facts.observed.secrets:
        keys = needed.get(secret.name)
        if keys is None:
            continue
        if not secret.exists:
            yield Finding("SecretMissing", f"Secret {secret.name} does not exist")
        elif missing := sorted(keys - secret.keys):
            yield Finding("SecretKeyEmpty", f"Secret {secret.name} has no value for {', '.join(missing)}")
        elif not keys and (secret.empty_keys or not secret.keys):
            words = ", ".join(sorted(secret.empty_keys)) or "any key"
            yield Finding("SecretKeyEmpty", f"Secret {secret.name} has no value for {words}")
