"""`spec.pipelines`: graphs over the models of a service, each run as one call; and what makes a graph fit to run.

What the schema and its rules cannot say is said by `check`: which kind of value flows from step to step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from embedfleet.api.base import NAME_PATTERN, ContractModel, Rule, nearest
from embedfleet.api.models import Task
from embedfleet.api.references import Unique

INPUT = "input"
"""The name under which a step reads what the request brings."""
MOST_STEPS = 32
MOST_PIPELINES = 8
"""As many as the API server lets rules over 32 steps each be asked of (the budget of CEL)."""

StepName = Annotated[str, Field(pattern=NAME_PATTERN, max_length=32)]
ModelName = Annotated[str, Field(min_length=1, max_length=63)]
Purpose = Literal["Query", "Document"]


class Embed(ContractModel):
    """What a model of task Dense, Sparse or MultiVector makes of each text."""

    model: ModelName
    """Name of the model."""
    input: Purpose | None = None
    """What the texts are for: chooses the model's prompt. Unset: the model's own default."""
    late: bool = False
    """Late chunking: one forward of the whole document by a Dense model, the mean of each chunk's token vectors."""


class Rerank(ContractModel):
    """How well each text answers the `query` that the input brings; a model of task Rerank."""

    model: ModelName
    """Name of the model."""


class Chunk(ContractModel):
    """Texts cut into pieces that know their places."""

    by: Literal["Tokens", "Sentences"] = "Tokens"
    """What `size` and `overlap` count."""
    size: Annotated[int, Field(ge=1, le=65_536)] = 256
    """Most of them in a chunk."""
    overlap: Annotated[int, Field(ge=0, le=65_535)] = 0
    """How many a chunk shares with the one before."""
    model: ModelName | None = None
    """Whose tokens are counted. Unset: those of the first step that gives the chunks to a model."""

    cel_rules = (
        Rule(
            "self.overlap < self.size",
            "overlap must be less than size, or chunks would not get on",
            lambda self: self.get("overlap", 0) < self.get("size", 256),
        ),
    )


class Pool(ContractModel):
    """One vector of several: all of an input's vectors, or of multi-vector rows each row's."""

    by: Literal["Mean", "Max", "Weighted"] = "Mean"
    """`Weighted`: the mean with weights, which the second name in `from` gives: scores, or the lengths of chunks."""


class Concatenate(ContractModel):
    """The vectors of several steps side by side."""


class Normalize(ContractModel):
    """Each vector with length 1."""


class Truncate(ContractModel):
    """The first numbers of each vector; a step `normalize` after it gives them length 1 again."""

    dimensions: Annotated[int, Field(ge=1, le=65_536)]
    """How many."""


class Quantize(ContractModel):
    """Vectors in fewer bytes, as sentence-transformers makes them."""

    to: Literal["Int8", "Binary"]
    """`Int8`: 256 steps for each dimension. `Binary`: whether each number is above 0, eight to a byte."""
    limit_thousandths: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """The steps of Int8 go from minus so many thousandths to as many. Unset: over the input's own vectors' range."""

    cel_rules = (
        Rule(
            "!has(self.limitThousandths) || self.to == 'Int8'",
            "limitThousandths is for to: Int8 only, since Binary has no steps",
            lambda self: self.get("limitThousandths") is None or self["to"] == "Int8",
        ),
    )


OPERATIONS = ("embed", "rerank", "chunk", "pool", "concatenate", "normalize", "truncate", "quantize")


class Step(ContractModel):
    """One node of the graph: exactly one of the operations."""

    name: StepName
    """Unique within the pipeline; by it other steps and `outputs` read what the step gives."""
    embed: Embed | None = None
    """Vectors of texts."""
    rerank: Rerank | None = None
    """Scores of texts."""
    chunk: Chunk | None = None
    """Pieces of texts."""
    pool: Pool | None = None
    """One vector of several."""
    concatenate: Concatenate | None = None
    """Vectors side by side."""
    normalize: Normalize | None = None
    """Vectors of length 1."""
    truncate: Truncate | None = None
    """Shorter vectors."""
    quantize: Quantize | None = None
    """Vectors in fewer bytes."""
    sources: Annotated[list[Annotated[str, Field(max_length=32)]], Field(min_length=1, max_length=8), Unique] = Field(
        alias="from"
    )
    """What it reads: `input`, or steps that stand before it."""

    cel_rules = (
        Rule(
            f"[{', '.join(f'has(self.{name})' for name in OPERATIONS)}].exists_one(given, given)",
            f"a step must have exactly one of {', '.join(OPERATIONS[:-1])} and {OPERATIONS[-1]}",
            lambda self: [self.get(name) is not None for name in OPERATIONS].count(True) == 1,
        ),
        Rule("self.name != 'input'", "no step may be named input", lambda self: self["name"] != INPUT),
    )

    @property
    def operation(self) -> str:
        """Which of `OPERATIONS` it is."""
        return next(name for name in OPERATIONS if getattr(self, name) is not None)

    @property
    def model(self) -> str | None:
        """The model it names; None where it names none."""
        return getattr(getattr(self, self.operation), "model", None)


def _reads_earlier(self: Mapping[str, Any]) -> bool:
    names = [step["name"] for step in self["steps"]]
    return all(
        one == INPUT or one in names[: names.index(step["name"])] for step in self["steps"] for one in step["from"]
    )


def _is_used(self: Mapping[str, Any]) -> bool:
    read = {one for step in self["steps"] for one in step["from"]} | {*self["outputs"]}
    return all(step["name"] in read for step in self["steps"])


class Pipeline(ContractModel):
    """A graph of steps, run for each input of a request; steps with no path between them run at once."""

    name: Annotated[str, Field(pattern=NAME_PATTERN, max_length=63)]
    """The last part of its address, `/v1/pipelines/NAME`."""
    parallel_executions: Annotated[int, Field(ge=1, le=1000)] = 10
    """Most inputs under way at once, over all requests."""
    steps: Annotated[list[Step], Field(min_length=1, max_length=MOST_STEPS)]
    """The graph; a step reads `input` or steps before it."""
    outputs: Annotated[list[Annotated[str, Field(max_length=32)]], Field(min_length=1, max_length=MOST_STEPS), Unique]
    """Names of the steps whose values are answered."""

    cel_rules = (
        Rule(
            "self.steps.all(s, self.steps.exists_one(t, t.name == s.name))",
            "step names must be unique",
            lambda self: len({step["name"] for step in self["steps"]}) == len(self["steps"]),
        ),
        Rule(
            # The names stand in a list of one, so that they are made once: else the rule costs 100 times the budget.
            "[self.steps.map(t, t.name)].all(names, self.steps.all(s, s.from.all(f, f == 'input' ||"
            " (names.indexOf(f) >= 0 && names.indexOf(f) < names.indexOf(s.name)))))",
            "from must name input or steps that stand before the step",
            _reads_earlier,
        ),
        Rule(
            "self.outputs.all(o, self.steps.exists(s, s.name == o))",
            "outputs must be names of steps",
            lambda self: {*self["outputs"]} <= {step["name"] for step in self["steps"]},
        ),
        Rule(
            "self.steps.all(s, s.name in self.outputs || self.steps.exists(t, s.name in t.from))",
            "every step must be in outputs or be read by another step",
            _is_used,
        ),
    )

    def step(self, name: str) -> Step:
        """The step of that name."""
        return next(step for step in self.steps if step.name == name)

    @property
    def models(self) -> tuple[str, ...]:
        """The models its steps name, each once, in their order."""
        return tuple(dict.fromkeys(step.model for step in self.steps if step.model is not None))

    def counting_model(self, step: Step) -> str | None:
        """Whose tokens a step `chunk` counts; None where there is none, or sentences are counted."""
        if step.chunk is None or step.chunk.by == "Sentences":
            return None
        return step.chunk.model or next(
            (one.model for one in self.steps if step.name in one.sources and one.operation in ("embed", "rerank")), None
        )


Kind = Literal["texts", "chunks", "vectors", "sparse", "ragged", "scores", "codes", "unknown"]
"""What flows: texts, pieces of texts; rows of numbers by task; scores; quantised vectors; or a model not yet known."""


@dataclass(frozen=True, slots=True)
class KnownModel:
    """What is known of a model: by the manifest, or once it is loaded."""

    task: Task | None = None
    dimensions: int | None = None
    labels: int | None = None
    """Scores that a Rerank model gives each pair."""


@dataclass(frozen=True, slots=True)
class PipelineProblem:
    """What keeps a pipeline from running."""

    pipeline: str
    step: str
    message: str

    def __str__(self) -> str:
        return f"pipeline {self.pipeline!r}, step {self.step!r}: {self.message}"


@dataclass(frozen=True, slots=True)
class Flow:
    """The value that a step gives: its kind, and how long its vectors are where that is known."""

    kind: Kind
    dimensions: int | None = None


_TEXTS: tuple[Kind, ...] = ("texts", "chunks")
_TAKES: Mapping[str, tuple[tuple[Kind, ...], ...]] = {
    "embed": (_TEXTS,),
    "rerank": (_TEXTS,),
    "chunk": (("texts",),),
    "pool": (("vectors", "ragged"),),
    "normalize": (("vectors", "ragged"),),
    "truncate": (("vectors", "ragged"),),
    "quantize": (("vectors", "ragged"),),
}
"""Kinds of value that each operation reads, one entry for each name in `from`."""
_WEIGHTED: tuple[tuple[Kind, ...], ...] = (("vectors",), ("scores", "chunks"))
_GIVES: Mapping[Task, Kind] = {"Dense": "vectors", "Sparse": "sparse", "MultiVector": "ragged"}


def check(pipeline: Pipeline, models: Mapping[str, KnownModel]) -> tuple[PipelineProblem, ...]:
    """What is wrong with the kinds of value that flow, in the order of the steps; `models` are the service's."""
    flows: dict[str, Flow] = {INPUT: Flow("texts")}
    found: list[PipelineProblem] = []
    for step in pipeline.steps:
        message = _unknown(step, models) or _wrong(pipeline, step, flows, models)
        if message is not None:
            found.append(PipelineProblem(pipeline.name, step.name, message))
        flows[step.name] = _given(step, flows, models) if message is None else Flow("unknown")
    return tuple(found)


def known(spec: Any) -> KnownModel:
    """What a manifest's model says of itself."""
    return KnownModel(spec.task, spec.dimensions)


def _unknown(step: Step, models: Mapping[str, KnownModel]) -> str | None:
    if step.model is None or step.model in models:
        return None
    return f"{step.operation}.model is {step.model!r}: it must be one of the models; {nearest(step.model, [*models])}"


def _wrong(pipeline: Pipeline, step: Step, flows: Mapping[str, Flow], models: Mapping[str, KnownModel]) -> str | None:
    read = [flows[name] for name in step.sources]
    wrong = _misfit(step, read) or _wrong_task(step, models)
    if wrong is None and step.truncate is not None:
        wrong = _too_long(step.truncate.dimensions, read[0])
    if wrong is None and step.chunk is not None and step.chunk.by == "Tokens" and not pipeline.counting_model(step):
        wrong = "chunk.by is Tokens: chunk.model must say whose, since no step gives these chunks to a model"
    if wrong is None and step.embed is not None and step.embed.late:
        wrong = _not_late(pipeline, step, read[0])
    return wrong


def _misfit(step: Step, read: Sequence[Flow]) -> str | None:
    if step.operation == "concatenate":
        if len(read) < 2:
            return "concatenate must read the vectors of two steps or more"
        takes: tuple[tuple[Kind, ...], ...] = (("vectors",),) * len(read)
    else:
        is_weighted = step.pool is not None and step.pool.by == "Weighted"
        takes = _WEIGHTED if is_weighted else _TAKES[step.operation]
    if len(takes) != len(read):
        return f"{step.operation} must read {_count(len(takes))}, from names {len(read)}"
    for name, flow, kinds in zip(step.sources, read, takes, strict=True):
        if flow.kind not in (*kinds, "unknown"):
            return f"{step.operation} must read {' or '.join(kinds)}, and {name!r} gives {flow.kind}"
    return None


def _count(number: int) -> str:
    return "one value" if number == 1 else f"{number} values"


def _wrong_task(step: Step, models: Mapping[str, KnownModel]) -> str | None:
    if step.model is None or step.operation == "chunk":
        return None
    model = models[step.model]
    if step.rerank is not None:
        if model.task not in (None, "Rerank"):
            return f"rerank needs a model of task Rerank, and {step.model!r} is {model.task}"
        if model.labels not in (None, 1):
            return f"rerank needs a model with one score a pair, and {step.model!r} gives {model.labels}"
    elif model.task == "Rerank":
        return f"embed needs a model of task Dense, Sparse or MultiVector, and {step.model!r} is Rerank"
    elif step.embed is not None and step.embed.late and model.task not in (None, "Dense"):
        return f"embed.late needs a model of task Dense, and {step.model!r} is {model.task}"
    return None


def _too_long(wanted: int, flow: Flow) -> str | None:
    if flow.dimensions is None or wanted <= flow.dimensions:
        return None
    return f"truncate.dimensions is {wanted}: it must be at most {flow.dimensions}, the length of the vectors it reads"


def _not_late(pipeline: Pipeline, step: Step, read: Flow) -> str | None:
    if read.kind not in ("chunks", "unknown"):
        return f"embed.late must read chunks, and {step.sources[0]!r} gives {read.kind}"
    source = pipeline.step(step.sources[0])
    if source.sources != [INPUT]:
        return "embed.late must read chunks of input"
    return None


def _given(step: Step, flows: Mapping[str, Flow], models: Mapping[str, KnownModel]) -> Flow:
    read = [flows[name] for name in step.sources]
    match step.operation:
        case "chunk":
            return Flow("chunks")
        case "rerank":
            return Flow("scores")
        case "quantize":
            return Flow("codes")
        case "pool":
            return Flow("vectors", read[0].dimensions)
        case "truncate":
            assert step.truncate is not None
            return Flow(read[0].kind, step.truncate.dimensions)
        case "concatenate":
            lengths = [flow.dimensions for flow in read]
            return Flow("vectors", None if None in lengths else sum(length or 0 for length in lengths))
        case "embed":
            return _embedded(step, models)
        case _:
            return read[0]


def _embedded(step: Step, models: Mapping[str, KnownModel]) -> Flow:
    assert step.model is not None
    model = models[step.model]
    task: Task | None = "Dense" if step.embed is not None and step.embed.late else model.task
    return Flow("unknown" if task is None else _GIVES[task], None if task == "Sparse" else model.dimensions)
