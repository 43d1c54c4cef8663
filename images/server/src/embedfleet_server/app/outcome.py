"""From a checked request to its vectors, bad inputs set aside where the request asks for that."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedfleet.api.models import Task
from embedfleet_server.app.dimensions import choose
from embedfleet_server.app.errors import OverlongItems, UnservableRows
from embedfleet_server.app.requests import NEEDS_RANGES, EmbeddingRequest, out_of_range, raise_bad
from embedfleet_server.app.schedule import Schedule
from embedfleet_server.engine.delivery import Answer
from embedfleet_server.engine.engine import Engine
from embedfleet_server.engine.errors import BadItems, EngineError, InvalidRequest, ItemError
from embedfleet_server.engine.protocols import Item, ModelInfo
from embedfleet_server.engine.rows import blank, spread

ROUTES: Mapping[Task, str] = {
    "Dense": "/v1/embeddings or /embed",
    "Sparse": "/embed_sparse",
    "MultiVector": "/embed_all",
    "Rerank": "/rerank or /v1/rerank",
}
"""The routes that a model of a task answers."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a model gave: `rows` of its task (see `engine.rows`), NaN or empty where `errors` names the input."""

    rows: Any
    errors: Mapping[int, ItemError]
    tokens: int
    queue_seconds: float
    compute_seconds: float
    info: ModelInfo
    truncated: Sequence[int] = ()
    """The inputs that were longer than the model takes, and lost their end."""


async def whole(engine: Engine, model: str, asked: EmbeddingRequest, schedule: Schedule) -> Outcome:
    """All inputs or an error: `BadItems` lists every bad one, `UnservableRows` those without a finite vector."""
    raise_bad(known_bad(asked, engine.info(model)))
    try:
        answer = await _embed(engine, model, asked.items, asked, schedule)
    except BadItems as error:
        raise_bad({e.index: e for e in error.errors})
        raise
    if answer.errors:
        raise _unserved([answer.errors[index] for index in sorted(answer.errors)])
    return Outcome(
        answer.rows, {}, sum(answer.tokens), answer.queue_seconds, answer.compute_seconds, answer.info, answer.truncated
    )  # fmt: skip


async def partial(engine: Engine, model: str, asked: EmbeddingRequest, schedule: Schedule) -> Outcome:
    """The good inputs' vectors and NaN for the bad ones; an error only where it concerns the request as a whole."""
    bad = known_bad(asked, engine.info(model))
    while kept := [index for index in range(len(asked.items)) if index not in bad]:
        try:
            answer = await _embed(engine, model, [asked.items[i] for i in kept], asked, schedule)
        except BadItems as error:
            found = _at(kept, {e.index: e for e in error.errors})
            if not found:
                raise
            bad |= found
            continue
        rows = spread(answer.rows, kept, len(asked.items))
        errors = bad | _at(kept, answer.errors)
        truncated = [kept[index] for index in answer.truncated]
        return Outcome(
            rows, errors, sum(answer.tokens), answer.queue_seconds, answer.compute_seconds, answer.info, truncated
        )  # fmt: skip
    return _nothing_good(engine.info(model), bad, len(asked.items))


def check(asked: EmbeddingRequest, info: ModelInfo) -> int:
    """Length of the vectors to answer with; raises `InvalidRequest` for what this model cannot give."""
    check_task(info, asked.task)
    check_prompt(info, asked.prompt_name)
    if asked.normalize is False and info.normalized:
        raise InvalidRequest(
            f"normalize is false: the files of model {info.name!r} normalize its vectors, which cannot be taken back",
            "normalize",
        )
    if asked.dtype in NEEDS_RANGES and len(asked.items) < 2:  # from one no range can be told
        raise InvalidRequest(
            f"dtype is {asked.dtype}: its steps are told from the request's vectors, which takes two or more",
            "dtype",
        )
    return choose(info, asked.dimensions, forced=asked.force_dimensions)


def check_task(info: ModelInfo, task: Task) -> None:
    """`InvalidRequest` unless the model can answer requests of `task`; names the routes for it."""
    if info.task != task:
        raise InvalidRequest(
            f"model {info.name!r} is for {info.task}: ask it at {ROUTES[info.task]}; this route is for {task} models",
            "model",
        )
    if task == "Rerank" and info.native_dimensions != 1:
        raise InvalidRequest(
            f"model {info.name!r} gives {info.native_dimensions} scores a pair, one for each of its labels: texts can "
            "be put in order by a model with one only",
            "model",
        )


def check_prompt(info: ModelInfo, name: str | None) -> None:
    """`InvalidRequest` unless the model has a prompt of that name, or none is asked."""
    if name is not None and name not in info.prompts:
        known = ", ".join(sorted(info.prompts)) or "none"
        raise InvalidRequest(
            f"prompt_name is {name[:60]!r}: it must be a prompt of model {info.name!r} (it has: {known})", "prompt_name"
        )


def _unserved(errors: list[ItemError]) -> EngineError:
    """The error of a request some of whose inputs got no vector: the caller's fault only when all were too large."""
    if all(error.code == "input_too_large" for error in errors):
        return OverlongItems(errors)
    return UnservableRows(errors)


async def _embed(
    engine: Engine, model: str, items: Sequence[Item], asked: EmbeddingRequest, schedule: Schedule
) -> Answer:
    return await engine.embed(
        model,
        items,
        input_type=asked.prompt_name or asked.input_type,
        priority=schedule.priority,
        tenant=schedule.tenant,
        within=schedule.within,
        side=asked.side,
        truncate=asked.truncate,
        check=lambda info: _check(asked, info),
    )


def _check(asked: EmbeddingRequest, info: ModelInfo) -> None:
    """For a model that was not loaded when the request came."""
    check(asked, info)


def known_bad(asked: EmbeddingRequest, info: ModelInfo | None) -> dict[int, ItemError]:
    """What can be told to be bad before the model is asked: without it, and from its vocabulary once it is loaded."""
    if info is None:
        return dict(asked.bad)
    return {error.index: error for error in out_of_range(asked.items, info.vocabulary)} | dict(asked.bad)


def _at(kept: list[int], errors: Mapping[int, ItemError]) -> dict[int, ItemError]:
    """Errors counted within the kept inputs, counted within the request."""
    return {kept[index]: ItemError(kept[index], e.code, e.message) for index, e in errors.items()}


def _nothing_good(info: ModelInfo | None, bad: Mapping[int, ItemError], total: int) -> Outcome:
    """Every input is bad. The length of a vector of a model that is not loaded is unknown: then it is an error."""
    if info is None:
        raise_bad(bad)
        raise AssertionError("This is a bug: no input is good and none is bad")
    return Outcome(blank(info.task, total, info.native_dimensions), bad, 0, 0.0, 0.0, info)
