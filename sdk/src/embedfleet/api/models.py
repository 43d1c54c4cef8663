"""`spec.models`: one embedding model each, where its weights come from and how it is served."""

from typing import Annotated, Literal

from pydantic import Field

from embedfleet.api.base import ContractModel, Rule
from embedfleet.api.batching import ModelBatching

Dtype = Literal["Auto", "Float32", "BFloat16", "Float16"]
Loading = Literal["Eager", "Lazy"]
Task = Literal["Dense", "Sparse", "MultiVector", "Rerank"]
"""A vector per input; weights of words (SPLADE); a vector per token (ColBERT); scores of pairs (cross-encoder)."""


class HuggingFaceSource(ContractModel):
    """Weights of a Hugging Face repository, looked for in the local store first."""

    repo: Annotated[str, Field(pattern=r"^[A-Za-z0-9][-A-Za-z0-9._]*(/[A-Za-z0-9][-A-Za-z0-9._]*)?$", max_length=192)]
    """Repository id, such as `sentence-transformers/all-MiniLM-L6-v2`; never a URL."""
    revision: Annotated[str, Field(pattern=r"^[A-Za-z0-9][-A-Za-z0-9._/]*$", max_length=128)] = "main"
    """Branch, tag or commit. A commit makes the service reproducible."""


class Source(ContractModel):
    """Where the weights come from: exactly one of the fields."""

    hugging_face: HuggingFaceSource | None = None
    """A Hugging Face repository."""
    path: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """A sentence-transformers directory on the machine that runs the server; on a laptop relative to the manifest."""

    cel_rules = (
        Rule(
            "has(self.huggingFace) != has(self.path)",
            "exactly one of huggingFace and path must be set",
            lambda self: (self.get("huggingFace") is not None) != (self.get("path") is not None),
        ),
    )


class Prompts(ContractModel):
    """Texts put before an input, chosen by the request's `input_type`; they override the model's own."""

    query: Annotated[str, Field(max_length=4096)] | None = None
    """Put before each text of a request with `input_type: query`."""
    document: Annotated[str, Field(max_length=4096)] | None = None
    """Put before each text of a request with `input_type: document`."""


class ModelSpec(ContractModel):
    """One model of the set, with a queue of its own."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?$", max_length=63)]
    """The `model` of a request; unique within the service."""
    source: Source
    """Where the weights come from."""
    task: Task | None = None
    """What it computes. Unset: what the model's own files say; where they say it, another task is refused."""
    dimensions: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Length of a Dense model's vectors: the first so many, normalised again. Unset: the model's own length."""
    normalize: bool | None = None
    """Whether a Dense model's vectors have length 1. Unset: as the model's own files say."""
    max_tokens: Annotated[int, Field(ge=1, le=1048576)] | None = None
    """Longer inputs are cut to so many tokens, special ones included. Unset: the model's own limit, the highest."""
    dtype: Dtype = "Auto"
    """Precision of the forward. `Auto`: what the device is best at."""
    prompts: Prompts | None = None
    """Texts put before an input. Unset: the model's own."""
    required: bool | None = None
    """Whether the service is ready only once this model is. Unset: true when `loading` is Eager, false when Lazy."""
    loading: Loading = "Eager"
    """`Eager`: loaded at start. `Lazy`: loaded at the first request for it."""
    batching: ModelBatching | None = None
    """What differs from `spec.batching` for this model alone."""

    cel_rules = (
        Rule(
            "!(has(self.required) && self.required && self.loading == 'Lazy')",
            "a model with loading Lazy cannot be required: the service would never be ready",
            lambda self: not (self.get("required") is True and self.get("loading", "Eager") == "Lazy"),
        ),
    )

    @property
    def is_required(self) -> bool:
        """`required`, with its default filled in."""
        return self.loading == "Eager" if self.required is None else self.required
