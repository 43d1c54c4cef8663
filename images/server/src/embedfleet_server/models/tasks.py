"""Which task a model is for, told by its own files. Nothing but JSON is read, and nothing of it is run.

A manifest may name the task; where the files say which it is, it can only say the same.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedfleet.api.models import Task
from embedfleet_server.models.files import parsed, read_json
from embedfleet_server.models.problems import ModelProblem

PYLATE_DENSE = "pylate.models.Dense.Dense"
"""PyLate's name of a module that sentence-transformers has too, and loads in its place."""

# `model_type` of config_sentence_transformers.json; "ColBERT" is what PyLate writes there.
_TYPES: Mapping[str, Task] = {
    "SentenceTransformer": "Dense",
    "SparseEncoder": "Sparse",
    "MultiVectorEncoder": "MultiVector",
    "ColBERT": "MultiVector",
    "CrossEncoder": "Rerank",
}
_MODULES: Mapping[str, Task] = {
    "SpladePooling": "Sparse",
    "MLMTransformer": "Sparse",
    "SparseAutoEncoder": "Sparse",
    "SparseStaticEmbedding": "Sparse",
    "MultiVectorMask": "MultiVector",
    "LogitScore": "Rerank",
}
_PYLATE_KEYS = frozenset({"query_prefix", "document_prefix"})
# Heads that a base model carries from its pre-training; sentence-transformers drops them and takes the mean.
_PRETRAINING = ("", "MaskedLM", "PreTraining", "CausalLM")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a model's files say of themselves; `modules` are the types in modules.json, None where there is none."""

    model_type: str | None = None
    modules: tuple[str, ...] | None = None
    architectures: tuple[str, ...] = ()
    config_keys: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Finding:
    """The task, what showed it, and the tasks that the files leave open beside it."""

    task: Task
    shown_by: str
    others: tuple[Task, ...] = ()


def task_of(directory: Path, asked: Task | None) -> Task:
    """The task of the model in `directory`; `asked` is the manifest's. `ModelProblem` where these contradict."""
    return choose(evidence(directory), asked)


def choose(found: Evidence, asked: Task | None) -> Task:
    """The task that the files show, or `asked` where they leave it open."""
    finding = recognise(found)
    if finding is None:
        if asked == "Dense":
            return asked
        raise ModelProblem(f"its files do not say which task it is for: they show {_described(found)}; set task")
    if asked in (None, finding.task, *finding.others):
        return asked or finding.task
    raise ModelProblem(f"task is {asked} and its own files say {finding.task}: {finding.shown_by}")


def recognise(found: Evidence) -> Finding | None:
    """The task that the files show; None where they show none that is known."""
    if found.modules is not None:
        return _by_modules(found, found.modules)
    return _by_architecture(found.architectures)


def evidence(directory: Path) -> Evidence:
    """What the files in `directory` say."""
    config = read_json(directory / "config_sentence_transformers.json")
    kind = config.get("model_type")
    architectures = read_json(directory / "config.json").get("architectures")
    return Evidence(
        model_type=kind if isinstance(kind, str) else None,
        modules=_module_types(directory / "modules.json"),
        architectures=tuple(_texts(architectures)),
        config_keys=frozenset(config),
    )


def _by_modules(found: Evidence, modules: tuple[str, ...]) -> Finding | None:
    """The type stated, but for older PyLate, which stated none or sentence-transformers' default."""
    task = _TYPES.get(found.model_type or "SentenceTransformer")
    if task is None:
        return None
    if task == "Dense" and (sign := _sign(found, modules)) is not None:
        return sign
    return Finding(task, f"model_type {found.model_type!r}" if found.model_type else "the modules in modules.json")


def _sign(found: Evidence, modules: tuple[str, ...]) -> Finding | None:
    """A module or a key that no dense model has."""
    if PYLATE_DENSE in modules or _PYLATE_KEYS & found.config_keys:
        return Finding("MultiVector", "it was saved by PyLate")
    kinds = [name.rpartition(".")[2] for name in modules]
    telling = next((kind for kind in kinds if kind in _MODULES), None)
    return None if telling is None else Finding(_MODULES[telling], f"its module {telling}")


def _by_architecture(architectures: tuple[str, ...]) -> Finding | None:
    if "HF_ColBERT" in architectures:
        return Finding("MultiVector", "architecture HF_ColBERT")
    name = next(iter(architectures), "")
    shown_by = f"architecture {name}" if name else "a plain transformer"
    head = name.partition("For")[2]
    if head == "SequenceClassification":
        return Finding("Rerank", shown_by)
    if head not in _PRETRAINING:
        return None
    return Finding("Dense", shown_by, ("Sparse",) if head == "MaskedLM" else ())


def _described(found: Evidence) -> str:
    if found.modules is not None:
        return f"model_type {found.model_type!r}"
    return f"the architecture {', '.join(found.architectures)}"


def _module_types(file: Path) -> tuple[str, ...] | None:
    if not file.is_file():
        return None
    lines = parsed(file)
    return tuple(
        _texts(line.get("type") for line in lines if isinstance(line, dict)) if isinstance(lines, list) else ()
    )


def _texts(values: Any) -> Iterable[str]:
    if not isinstance(values, Iterable) or isinstance(values, str):
        return ()
    return (value for value in values if isinstance(value, str))
