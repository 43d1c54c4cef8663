"""The answers' types, for the OpenAPI document; the answers themselves are written without them, as they are hot."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel
from pydantic.json_schema import models_json_schema

REF = "#/components/schemas/{model}"


class Shape(BaseModel):
    """Nothing but what is named."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class InputProblem(Shape):
    """What is wrong with the input at `index`."""

    index: int
    code: str
    message: str


class Embedding(Shape):
    """One vector. Null stands for a bad input that was set aside."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str | None


class Usage(Shape):
    """Tokens computed."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Shape):
    """OpenAI's answer; `errors` only where bad inputs were set aside."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage
    errors: list[InputProblem] = []


class WarmUp(Shape):
    """What was measured before the model was ready; null where that is not known.

    Speeds by the tokens of a text, what a forward takes however few its tokens, how many a batch may hold by the
    device's memory.
    """

    tokens_per_second: dict[str, float]
    start_milliseconds: float | None
    safe_batch_tokens: int | None
    seconds: float
    reason: str


class ModelDetails(BaseModel):
    """What OpenAI's list has no field for; null where the model is not loaded."""

    model_config = ConfigDict(protected_namespaces=())

    service: str
    state: str
    default: bool
    required: bool
    max_inputs: int
    item_timeout_seconds: int
    cause: str | None
    task: str | None
    dimensions: int | None
    max_tokens: int | None
    fingerprint: str | None
    precision: str | None
    precision_reason: str | None
    devices: list[str] | None
    layout: str | None
    layout_reason: str | None
    deterministic: bool
    deterministic_reason: str | None
    warm_up: WarmUp | None
    compiled: dict[str, str]
    compiled_reason: str | None


class Model(Shape):
    """One model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    embedfleet: ModelDetails


class ModelList(Shape):
    """Every model of the service."""

    object: Literal["list"]
    data: list[Model]


class Problem(Shape):
    """OpenAI's error, with `accepted`: whether the work may have been done."""

    message: str
    type: str
    code: str
    param: str | None
    accepted: bool
    errors: list[InputProblem] = []


class ErrorAnswer(Shape):
    """Every error of OpenAI's routes and our own."""

    error: Problem


class TeiError(Shape):
    """Every error of text-embeddings-inference's routes."""

    error: str
    error_type: Literal["Backend", "Overloaded", "Tokenizer", "Unhealthy", "Validation"]
    code: str
    accepted: bool
    errors: list[InputProblem] = []


class Vectors(RootModel[list[list[float] | None]]):
    """One vector for each input, in their order; null stands for a bad input that was set aside."""


class SparseValue(Shape):
    """The value of an active dimension."""

    index: int
    value: float


class SparseVectors(RootModel[list[list[SparseValue] | None]]):
    """The active dimensions of each input, in their order; null stands for a bad input that was set aside."""


class TokenVectors(RootModel[list[list[list[float]] | None]]):
    """The vectors of each input's tokens; null stands for a bad input that was set aside."""


class Rank(Shape):
    """The score of a text; `text` where it was asked for."""

    index: int
    text: str = ""
    score: float


class Ranks(RootModel[list[Rank]]):
    """The texts that have a score, best first."""


class Document(Shape):
    """A document given back."""

    text: str


class RerankResult(Shape):
    """The score of a document; `document` where it was asked for."""

    index: int
    relevance_score: float
    document: Document = Document(text="")


class RerankList(Shape):
    """Cohere's answer, best first; `errors` only where bad documents were set aside."""

    object: Literal["list"]
    model: str
    results: list[RerankResult]
    usage: Usage
    errors: list[InputProblem] = []


class ShownToken(Shape):
    """A token; `start` and `stop` count bytes of UTF-8, null of a special one."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class Tokens(RootModel[list[list[ShownToken]]]):
    """The tokens of each text."""


class Texts(RootModel[list[str]]):
    """The text of each list of token ids."""


class Similarities(RootModel[list[float]]):
    """The cosine of each sentence with the source sentence."""


class TeiInfo(Shape):
    """The default model, in text-embeddings-inference's words; null where it is not loaded."""

    model_id: str
    model_sha: str | None
    model_dtype: str | None
    model_type: dict[str, dict[str, str]]
    max_concurrent_requests: int
    max_input_length: int | None
    max_batch_tokens: int
    max_batch_requests: int
    max_client_batch_size: int
    auto_truncate: bool
    version: str


class PackedArray(Shape):
    """An array as base64 of its little-endian numbers."""

    dtype: str
    shape: list[int]
    base64: str


class StepProblem(Shape):
    """Why an input of a pipeline has no outputs."""

    step: str
    code: str
    message: str


class StepValue(BaseModel):
    """What a step gave: the arrays of its kind by name (docs/pipelines.md), written as lists or packed."""

    kind: Literal["chunks", "vectors", "sparse", "ragged", "scores", "codes"]


class PipelineResult(Shape):
    """One input's outputs by the name of their step, or its error."""

    index: int
    outputs: dict[str, StepValue] = {}
    error: StepProblem | None = None


class PipelineAnswer(Shape):
    """What a pipeline made of the inputs, in their order."""

    object: Literal["list"]
    pipeline: str
    data: list[PipelineResult]


class PipelineStep(Shape):
    """One node of a graph."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), populate_by_name=True)

    name: str
    operation: str
    model: str | None
    sources: list[str] = Field(alias="from")


class Pipeline(Shape):
    """One pipeline, how many of its inputs are under way, and how many wait for their turn."""

    id: str
    object: Literal["pipeline"]
    parallel_executions: int
    steps: list[PipelineStep]
    outputs: list[str]
    problems: list[str]
    under_way: int
    waiting: int


class PipelineList(Shape):
    """Every pipeline of the service."""

    object: Literal["list"]
    data: list[Pipeline]


ANSWERS: tuple[type[BaseModel], ...] = (
    EmbeddingList,
    Model,
    ModelList,
    ErrorAnswer,
    TeiError,
    Vectors,
    SparseVectors,
    TokenVectors,
    Ranks,
    RerankList,
    Tokens,
    Texts,
    Similarities,
    TeiInfo,
    PackedArray,
    PipelineAnswer,
    PipelineList,
)


def components() -> dict[str, Any]:
    """The JSON schema of every type here, by its name."""
    _, made = models_json_schema([(kind, "serialization") for kind in ANSWERS], ref_template=REF)
    found: dict[str, Any] = made["$defs"]
    return found


def ref(kind: type[BaseModel]) -> dict[str, str]:
    """A reference to one of the types."""
    return {"$ref": REF.format(model=kind.__name__)}
