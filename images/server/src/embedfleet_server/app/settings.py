"""The two settings files, read and checked whole: every wrong value of both is named in one go."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from embedfleet.api.base import ContractModel, nearest
from embedfleet.api.pipelines import check, known
from embedfleet.api.problems import problems
from embedfleet.api.settings import BATCHING_FILE, MODELS_FILE, BatchingSettings, ModelSettings

_T = TypeVar("_T", bound=ContractModel)


class WrongSettings(Exception):
    """The settings cannot be used; `problems` has a line for each mistake."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.problems = tuple(lines)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the server was told."""

    models: ModelSettings
    batching: BatchingSettings


def load(directory: Path) -> Settings:
    """The settings in `directory`; raises `WrongSettings`."""
    wrong: list[str] = []
    models = _read(directory / MODELS_FILE, ModelSettings, wrong)
    batching = _read(directory / BATCHING_FILE, BatchingSettings, wrong)
    if models is not None:
        wrong += _disagreements(models, batching)
    if wrong or models is None or batching is None:
        raise WrongSettings(wrong)
    return Settings(models, batching)


def load_models(directory: Path) -> ModelSettings:
    """`models.json` alone, for who needs no more; raises `WrongSettings`."""
    wrong: list[str] = []
    models = _read(directory / MODELS_FILE, ModelSettings, wrong)
    if models is None:
        raise WrongSettings(wrong)
    return models


def _read(path: Path, kind: type[_T], wrong: list[str]) -> _T | None:
    """The file as `kind`; None, and lines in `wrong`, when it is not one."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        wrong.append(f"{path}: cannot be read: {error.strerror or error}")
    except ValidationError as error:
        wrong += [f"{path.name}: {problem}" for problem in problems(error)]
    return None


def _disagreements(models: ModelSettings, batching: BatchingSettings | None) -> list[str]:
    """What each file alone cannot show."""
    names = [model.name for model in models.models]
    wrong = [
        f"{MODELS_FILE}: models: {name!r} stands more than once" for name in sorted({*names}) if names.count(name) > 1
    ]
    if models.default_model is not None and models.default_model not in names:
        wrong.append(_unknown(f"{MODELS_FILE}: defaultModel", models.default_model, names))
    wrong += _unfit(models)
    if batching is None:
        return wrong
    wrong += [_unknown(f"{BATCHING_FILE}: models", name, names) for name in batching.models if name not in names]
    if models.drain.request_seconds < batching.batching.item_timeout_seconds:
        wrong.append(
            f"{MODELS_FILE}: drain.requestSeconds is {models.drain.request_seconds}: must be at least "
            f"batching.itemTimeoutSeconds ({batching.batching.item_timeout_seconds}), or accepted work would be cut off"
        )
    return wrong


def _unfit(models: ModelSettings) -> list[str]:
    """What keeps the pipelines from running, as far as the manifest tells; of the rest, once models are loaded."""
    told = {model.name: known(model) for model in models.models}
    names = [pipeline.name for pipeline in models.pipelines or ()]
    twice = [f"{MODELS_FILE}: pipelines: {n!r} stands more than once" for n in sorted({*names}) if names.count(n) > 1]
    return twice + [f"{MODELS_FILE}: {wrong}" for one in models.pipelines or () for wrong in check(one, told)]


def _unknown(where: str, name: str, names: list[str]) -> str:
    return f"{where} is {name!r}: must be one of the models; {nearest(name, names)}"
