"""The models as the pods report them, taken together: for `status.models` and for conditions."""

from collections.abc import Iterator, Sequence
from typing import Any, cast, get_args

from embedfleet.api.models import ModelSpec, Task
from embedfleet.api.pipelines import KnownModel, check, known
from embedfleet.api.status import ModelStatus
from embedfleet_operator.observed import ModelState
from embedfleet_operator.status.causes import Finding
from embedfleet_operator.status.facts import Facts

_WORST_FIRST = ("Failed", "Loading", "Pending", "Ready")
_CRITICAL = "CRITICAL"
_FIGURES = ("task", "dimensions", "max_tokens", "revision", "fingerprint", "precision", "device")


def models(facts: Facts) -> list[ModelStatus]:
    """A line for each model of the spec, in its order."""
    if facts.service is None:
        return []
    return [_together(model.name, _reports(facts, model.name)) for model in facts.service.spec.models]


def model_findings(facts: Facts) -> Iterator[Finding]:
    """What servers say of models, of their settings and of themselves."""
    for pod, answer in facts.answers:
        for model in answer.models:
            if model.state == "Failed":
                reason = "ModelLoadFailed" if model.required else "OptionalModelFailed"
                yield Finding(reason, f"pod {pod.name}, model {model.name}: {model.cause or 'no cause is given'}")
        if answer.rejected_files and (answer.generation or 0) < facts.observed.generation:
            yield Finding("SettingsRejected", f"pod {pod.name} runs values of generation {answer.generation}")
        for finding in answer.findings:
            if finding.severity == _CRITICAL:
                yield Finding("ServerUnwell", f"pod {pod.name}: {finding.message}")
    yield from _fingerprints(facts)
    yield from _pipelines(facts)


def _pipelines(facts: Facts) -> Iterator[Finding]:
    """What does not fit the models as a pod has loaded them."""
    if facts.service is None:
        return
    spec = facts.service.spec
    for pod, answer in facts.answers:
        loaded = {model.name: model for model in answer.models if model.task in get_args(Task)}
        told = {model.name: _known(model, loaded.get(model.name)) for model in spec.models}
        wrong = [one for pipeline in spec.pipelines for one in check(pipeline, told)]
        yield from (Finding("PipelineUnfit", f"pod {pod.name}, {one}") for one in wrong)


def _known(spec: ModelSpec, loaded: ModelState | None) -> KnownModel:
    if loaded is None:
        return known(spec)
    return KnownModel(cast("Task", loaded.task), loaded.dimensions)


def _fingerprints(facts: Facts) -> Iterator[Finding]:
    for model in facts.service.spec.models if facts.service else ():
        known = sorted({report.fingerprint for report in _reports(facts, model.name) if report.fingerprint})
        if len(known) > 1:
            yield Finding("FingerprintsDiffer", f"model {model.name} has {' and '.join(one[:12] for one in known)}")


def _reports(facts: Facts, name: str) -> list[ModelState]:
    return [model for _, answer in facts.answers for model in answer.models if model.name == name]


def _together(name: str, reports: Sequence[ModelState]) -> ModelStatus:
    if not reports:
        return ModelStatus(name=name, state="Unknown")
    worst = min(reports, key=_badness)
    message = worst.cause if worst.state == "Failed" else None
    return ModelStatus(name=name, state=worst.state, message=message, **_figures(reports))


def _badness(report: ModelState) -> int:
    return _WORST_FIRST.index(report.state) if report.state in _WORST_FIRST else len(_WORST_FIRST)


def _figures(reports: Sequence[ModelState]) -> dict[str, Any]:
    """The figures on which all pods agree that have any."""
    made = {}
    for figure in _FIGURES:
        known = {getattr(report, figure) for report in reports} - {None}
        if len(known) == 1:
            made[figure] = known.pop()
    return made
