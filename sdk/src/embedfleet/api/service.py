"""The custom resource `EmbeddingService`, `embedfleet.dev/v1alpha1`: the single source of CRD, settings and docs."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from embedfleet.api.access import Auth, Monitoring, Network, Tls
from embedfleet.api.base import NAME_PATTERN, ContractModel, Plain, Rule
from embedfleet.api.batching import Batching, largest_batch
from embedfleet.api.models import ModelSpec
from embedfleet.api.pipelines import MOST_PIPELINES, Pipeline
from embedfleet.api.pods import Drain, Gpu, PodTemplate, Rollout, grace_rule
from embedfleet.api.references import Image, SecretReference, Unique
from embedfleet.api.tracing import Tracing
from embedfleet.api.weights import Weights

GROUP = "embedfleet.dev"
VERSION = "v1alpha1"
API_VERSION: Literal["embedfleet.dev/v1alpha1"] = "embedfleet.dev/v1alpha1"
KIND: Literal["EmbeddingService"] = "EmbeddingService"
PLURAL = "embeddingservices"
SHORT_NAME = "embed"

_ASKING = ("embed", "rerank", "chunk")
"""Operations of a pipeline that may name a model."""
_NAMES_MODELS = (
    "!has(self.pipelines) || self.pipelines.all(p, p.steps.all(s, "
    + " && ".join(
        f"(!has(s.{kind}) || {'!has(s.chunk.model) || ' if kind == 'chunk' else ''}s.{kind}.model in"
        " self.models.map(m, m.name))"
        for kind in _ASKING
    )
    + "))"
)
_NAME_RULE = "the name must be a DNS label of at most 63 characters, since a Service gets it"


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
    pipelines: Annotated[list[Pipeline], Field(max_length=MOST_PIPELINES)] = Field(default_factory=list)
    """Graphs over the models, each run as one call."""
    gpu: Gpu = Field(default_factory=Gpu)
    """The devices of each replica."""
    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """Server pods in a cluster; a laptop runs one server."""
    suspend: bool = False
    """No pods, whatever `replicas` says; all else stays."""
    drain: Drain = Field(default_factory=Drain)
    """How a server leaves."""
    rollout: Rollout = Field(default_factory=Rollout)
    """How new pods take the place of old ones."""
    weights: Weights = Field(default_factory=Weights)
    """Where the weights of hub models are fetched from, and kept, in a cluster."""
    auth: Auth | None = None
    """Keys that requests must bring. Unset: none."""
    tls: Tls | None = None
    """Encryption of the public port. Unset: none."""
    network: Network = Field(default_factory=Network)
    """Who may reach the pods."""
    monitoring: Monitoring = Field(default_factory=Monitoring)
    """How the service is watched."""
    tracing: Tracing | None = None
    """Traces of requests. Unset: none, unless `OTEL_EXPORTER_OTLP_ENDPOINT` stands in the server's environment."""
    image: Image | None = None
    """Image of the server. Unset: the operator's."""
    image_pull_secrets: Annotated[list[SecretReference], Field(max_length=16), Unique] = Field(default_factory=list)
    """Secrets with which images are pulled."""
    pod_template: PodTemplate | None = None
    """What is to differ in the pods. Resources of the server: `spec.containers` with the name `server`."""

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
            "!has(self.pipelines) || self.pipelines.all(p, self.pipelines.exists_one(q, q.name == p.name))",
            "pipeline names must be unique",
            lambda self: len({p["name"] for p in self.get("pipelines") or ()}) == len(self.get("pipelines") or ()),
        ),
        Rule(
            _NAMES_MODELS,
            "the model of a pipeline's step must be the name of one of the models",
            lambda self: (
                {step[kind]["model"] for _, step, kind in _asking(self)} <= {model["name"] for model in self["models"]}
            ),
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
        grace_rule(),
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


def _asking(self: Plain) -> Iterator[tuple[Plain, Plain, str]]:
    """Pipeline, step and operation of each step that names a model."""
    for pipeline in self.get("pipelines") or ():
        for step in pipeline["steps"]:
            yield from ((pipeline, step, kind) for kind in _ASKING if (step.get(kind) or {}).get("model"))


def _of(plain: Plain, group: str, field: str, default: Any) -> Any:
    value = (plain.get(group) or {}).get(field)
    return default if value is None else value
