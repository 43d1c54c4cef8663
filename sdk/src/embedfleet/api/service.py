"""The custom resource `EmbeddingService`, `embedfleet.dev/v1alpha1`: the single source of CRD, settings and docs."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from embedfleet.api.base import NAME_PATTERN, ContractModel, Plain, Rule
from embedfleet.api.batching import Batching, largest_batch
from embedfleet.api.models import ModelSpec

GROUP = "embedfleet.dev"
VERSION = "v1alpha1"
API_VERSION: Literal["embedfleet.dev/v1alpha1"] = "embedfleet.dev/v1alpha1"
KIND: Literal["EmbeddingService"] = "EmbeddingService"
PLURAL = "embeddingservices"
SHORT_NAME = "embed"

_NAME_RULE = "the name must be a DNS label of at most 63 characters, since a Service gets it"


class Gpu(ContractModel):
    """The devices of each replica."""

    count: Annotated[int, Field(ge=0, le=64)] = 1
    """GPUs per replica; 0 serves on the CPU. A laptop without a GPU serves on its CPU and says so."""
    resource_name: Annotated[
        str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$", max_length=317)
    ] = "nvidia.com/gpu"
    """Extended resource the pods ask for; the names of MIG slices and time-sliced GPUs too."""


class Drain(ContractModel):
    """How a server leaves."""

    propagation_seconds: Annotated[int, Field(ge=0, le=3600)] = 15
    """A leaving pod serves on for at least so long, until no router sends to it any more; 0 on a laptop."""
    quiet_seconds: Annotated[int, Field(ge=0, le=3600)] = 5
    """After that it serves on until no request has come for so long."""
    max_lame_duck_seconds: Annotated[int, Field(ge=0, le=3600)] = 30
    """Longest that a leaving pod serves on, requests or not."""
    request_seconds: Annotated[int, Field(ge=1, le=86_400)] = 30
    """Longest that a leaving server works on what it has accepted."""

    cel_rules = (
        Rule(
            "self.propagationSeconds <= self.maxLameDuckSeconds",
            "drain.propagationSeconds must be at most drain.maxLameDuckSeconds",
            lambda self: self.get("propagationSeconds", 15) <= self.get("maxLameDuckSeconds", 30),
        ),
    )


class Metadata(ContractModel):
    """Kubernetes' own metadata; only the name matters here."""

    model_config = ConfigDict(extra="allow")

    name: Annotated[str, Field(pattern=NAME_PATTERN, max_length=63)]
    """Name of the service, unique in its namespace."""
    namespace: str | None = None
    """Namespace in a cluster; without meaning on a laptop."""
    uid: str | None = None
    """Set by the API server."""
    generation: int | None = None
    """Set by the API server: grows with every change of the spec."""


class EmbeddingServiceSpec(ContractModel):
    """A set of embedding models, how to batch and how many GPUs."""

    models: Annotated[list[ModelSpec], Field(min_length=1, max_length=32)]
    """The models of the set, each with its own queue."""
    default_model: Annotated[str, Field(max_length=63)] | None = None
    """Model of requests that name none. Unset: the one named like the service, else the only one."""
    batching: Batching = Field(default_factory=Batching)
    """How requests become batches; models may differ in their own `batching`."""
    gpu: Gpu = Field(default_factory=Gpu)
    """The devices of each replica."""
    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """Server pods in a cluster; a laptop runs one server."""
    drain: Drain = Field(default_factory=Drain)
    """How a server leaves."""

    cel_rules = (
        Rule(
            "self.models.all(m, self.models.exists_one(n, n.name == m.name))",
            "model names must be unique",
            lambda self: len({m["name"] for m in self["models"]}) == len(self["models"]),
        ),
        Rule(
            "!has(self.defaultModel) || self.models.exists(m, m.name == self.defaultModel)",
            "defaultModel must be the name of one of the models",
            lambda self: self.get("defaultModel") in (None, *(m["name"] for m in self["models"])),
        ),
        Rule(
            "self.batching.maxConcurrentBatches >= self.gpu.count",
            "batching.maxConcurrentBatches must be at least gpu.count, or a GPU would stand idle",
            lambda self: _of(self, "batching", "maxConcurrentBatches", 4) >= _of(self, "gpu", "count", 1),
        ),
        Rule(
            "self.drain.requestSeconds >= self.batching.itemTimeoutSeconds",
            "drain.requestSeconds must be at least batching.itemTimeoutSeconds, or accepted work would be cut off",
            lambda self: _of(self, "drain", "requestSeconds", 30) >= _of(self, "batching", "itemTimeoutSeconds", 30),
        ),
        Rule(
            "self.models.all(m, !has(m.batching) ||"
            " (has(m.batching.minBatchSize) ? m.batching.minBatchSize : self.batching.minBatchSize) <="
            " (has(m.batching.maxBatchSize) ? m.batching.maxBatchSize :"
            " has(self.batching.maxBatchSize) ? self.batching.maxBatchSize :"
            " (has(m.batching.sizing) ? m.batching.sizing : self.batching.sizing) == 'Fixed' ? 32 : 256))",
            "a model's minBatchSize must not be above its maxBatchSize, its own or the service's",
            lambda self: all(
                merged.get("minBatchSize", 1) <= largest_batch(merged)
                for m in self["models"]
                if m.get("batching")
                for merged in [{**(self.get("batching") or {}), **m["batching"]}]
            ),
        ),
        Rule(
            "self.models.all(m, !has(m.batching) || !has(m.batching.maxQueuedRequests)"
            " || m.batching.maxQueuedRequests <= self.batching.maxQueuedRequests)",
            "a model's batching.maxQueuedRequests must not be above the service's",
            lambda self: all(
                _of(m, "batching", "maxQueuedRequests", 0) <= _of(self, "batching", "maxQueuedRequests", 1000)
                for m in self["models"]
            ),
        ),
        Rule(
            "!has(self.batching.maxQueuedTokens) || self.models.all(m, !has(m.batching) ||"
            " !has(m.batching.maxQueuedTokens) || m.batching.maxQueuedTokens <= self.batching.maxQueuedTokens)",
            "a model's batching.maxQueuedTokens must not be above the service's",
            lambda self: all(
                _of(m, "batching", "maxQueuedTokens", 0)
                <= _of(self, "batching", "maxQueuedTokens", _of(m, "batching", "maxQueuedTokens", 0))
                for m in self["models"]
            ),
        ),
    )


class EmbeddingService(ContractModel):
    """A set of embedding models served together."""

    api_version: Literal["embedfleet.dev/v1alpha1"] = API_VERSION
    """Always `embedfleet.dev/v1alpha1`."""
    kind: Literal["EmbeddingService"] = KIND
    """Always `EmbeddingService`."""
    metadata: Metadata
    """Kubernetes' own metadata."""
    spec: EmbeddingServiceSpec
    """What is wanted."""
    status: dict[str, Any] | None = None
    """What is; written by the operator, ignored when given."""

    cel_rules = (
        Rule(
            f"self.metadata.name.size() <= 63 && self.metadata.name.matches('{NAME_PATTERN}')",
            _NAME_RULE,
            lambda self: True,  # Python says it on metadata.name itself, which a CRD's schema may not
        ),
    )


def _of(plain: Plain, group: str, field: str, default: Any) -> Any:
    value = (plain.get(group) or {}).get(field)
    return default if value is None else value
