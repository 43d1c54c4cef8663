"""`spec.models`: one embedding model each, where its weights come from and how it is served."""

from typing import Annotated, Literal

from pydantic import Field

from embedfleet.api.base import ContractModel, Rule
from embedfleet.api.batching import ModelBatching
from embedfleet.api.references import Image, ObjectName, RelativePath, climbs

Dtype = Literal["Auto", "Float32", "BFloat16", "Float16"]
Loading = Literal["Eager", "Lazy"]
Task = Literal["Dense", "Sparse", "MultiVector", "Rerank"]
"""A vector per input; weights of words (SPLADE); a vector per token (ColBERT); scores of pairs (cross-encoder)."""


_NO_CLIMBING = Rule(
    "!has(self.revision) || !self.revision.matches('[.][.]')",
    "revision must not contain '..', as no name in Git does",
    lambda self: ".." not in (self.get("revision") or ""),
)


class HuggingFaceSource(ContractModel):
    """Weights of a Hugging Face repository, looked for in the local store first."""

    repo: Annotated[str, Field(pattern=r"^[A-Za-z0-9][-A-Za-z0-9._]*(/[A-Za-z0-9][-A-Za-z0-9._]*)?$", max_length=192)]
    """Repository id, such as `sentence-transformers/all-MiniLM-L6-v2`; never a URL."""
    revision: Annotated[str, Field(pattern=r"^[A-Za-z0-9][-A-Za-z0-9._/]*$", max_length=128)] = "main"
    """Branch, tag or commit. A commit makes the service reproducible."""

    cel_rules = (_NO_CLIMBING,)


_INSIDE = Rule(
    "!has(self.path) || !self.path.matches('(^|/)[.][.](/|$)')",
    "path must not contain '..'",
    lambda self: not climbs(self.get("path") or ""),
)


class VolumeSource(ContractModel):
    """Weights on a volume of the cluster, mounted read-only."""

    claim_name: ObjectName
    """PersistentVolumeClaim in the service's namespace."""
    path: RelativePath | None = None
    """The sentence-transformers directory, from the volume's root. Unset: the root itself."""

    cel_rules = (_INSIDE,)


class ImageSource(ContractModel):
    """Weights in an image of their own, mounted read-only (Kubernetes' image volumes)."""

    reference: Image
    """The image; a digest (`…@sha256:…`) makes the service reproducible."""
    path: RelativePath | None = None
    """The sentence-transformers directory, from the image's root. Unset: the root itself."""

    cel_rules = (_INSIDE,)


_KINDS = ("huggingFace", "volume", "image", "path")


class Source(ContractModel):
    """Where the weights come from: exactly one of the fields."""

    hugging_face: HuggingFaceSource | None = None
    """A Hugging Face repository."""
    volume: VolumeSource | None = None
    """A volume of the cluster."""
    image: ImageSource | None = None
    """An image that holds weights."""
    path: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """A sentence-transformers directory: on a laptop relative to the manifest, in a pod absolute."""

    cel_rules = (
        Rule(
            f"[{', '.join(f'has(self.{kind})' for kind in _KINDS)}].exists_one(given, given)",
            f"exactly one of {', '.join(_KINDS[:-1])} and {_KINDS[-1]} must be set",
            lambda self: [self.get(kind) is not None for kind in _KINDS].count(True) == 1,
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
    """Precision of the forward. `Auto`: the fastest that keeps a cosine of 0.999 to float32; a named one is kept."""
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
