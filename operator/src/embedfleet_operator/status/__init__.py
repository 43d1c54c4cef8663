"""What is told of a service: conditions, figures and events, as pure functions of what is observed."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from embedfleet.api.status import Condition, EmbeddingServiceStatus, ModelStatus
from embedfleet_operator import names
from embedfleet_operator.status.conditions import Statement, statements
from embedfleet_operator.status.diagnosis import diagnose
from embedfleet_operator.status.events import Notice, transitions
from embedfleet_operator.status.facts import Facts
from embedfleet_operator.status.models import models

__all__ = ["Facts", "Notice", "changes", "read", "status", "transitions"]


_MOST_CHARACTERS = 4096  # of a condition's message: some pages of a terminal


def status(facts: Facts, old: EmbeddingServiceStatus, now: datetime) -> EmbeddingServiceStatus:
    """The status to tell; a condition keeps its time as long as its `status` stays. `now` in UTC."""
    name = str(facts.observed.service["metadata"]["name"])
    told = models(facts) if facts.service else old.models
    generations = [answer.generation for _, answer in facts.answers if answer.generation is not None]
    return EmbeddingServiceStatus(
        observed_generation=facts.observed.generation,
        replicas=sum(not pod.leaving for pod in facts.observed.pods),
        ready_replicas=len(facts.ready_pods),
        selector=",".join(f"{key}={value}" for key, value in names.selector(name).items()),
        url=names.url(facts.service) if facts.service else old.url,
        batching_generation=min(generations, default=None),
        conditions=_conditions(statements(facts, diagnose(facts)), old, facts.observed.generation, now),
        models=told,
        models_ready=f"{_loaded(facts, told)}/{len(told)}",
    )


def _loaded(facts: Facts, told: Sequence[ModelStatus]) -> int | str:
    """How many models are loaded; `?` when pods take requests and none answers the operator."""
    if facts.ready_pods and not facts.answers:
        return "?"
    return sum(model.state == "Ready" for model in told)


def read(tree: Mapping[str, Any]) -> EmbeddingServiceStatus:
    """The status that an object has; an empty one when there is none that can be read."""
    try:
        return EmbeddingServiceStatus.model_validate(tree.get("status") or {})
    except ValidationError:
        return EmbeddingServiceStatus()


def changes(old: Mapping[str, Any], new: EmbeddingServiceStatus) -> dict[str, Any] | None:
    """The status to write over `old` (the object's, as it is); None when it says all of it already."""
    wanted = new.model_dump(by_alias=True, exclude_none=True)
    return None if wanted == _own(old.get("status"), new) else wanted


def _own(status: Any, new: EmbeddingServiceStatus) -> Any:
    """`status` without conditions that others have put there, which stay as they are."""
    if not isinstance(status, Mapping) or not isinstance(status.get("conditions"), list):
        return status
    types = {condition.type for condition in new.conditions}
    return {**status, "conditions": [one for one in status["conditions"] if one.get("type") in types]}


def _conditions(
    made: Iterable[Statement], old: EmbeddingServiceStatus, generation: int, now: datetime
) -> list[Condition]:
    before = {condition.type: condition for condition in old.conditions}
    return [_condition(statement, before.get(statement.type), generation, now) for statement in made]


def _condition(statement: Statement, before: Condition | None, generation: int, now: datetime) -> Condition:
    same = before is not None and before.status == statement.status
    return Condition(
        type=statement.type,
        status=statement.status,
        reason=statement.reason,
        message=statement.message[:_MOST_CHARACTERS],
        observed_generation=generation,
        last_transition_time=before.last_transition_time if same and before is not None else _stamp(now),
    )


def _stamp(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
