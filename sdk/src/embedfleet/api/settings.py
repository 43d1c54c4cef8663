"""What a server is told: two files, one that only a restart changes and one that changes while it runs.

`embedfleet serve` writes them beside a laptop's server, the operator as two ConfigMaps: the same bytes in both.
"""

from typing import Annotated

from pydantic import Field

from embedfleet.api.base import ContractModel
from embedfleet.api.batching import Batching, ModelBatching
from embedfleet.api.models import ModelSpec
from embedfleet.api.pipelines import MOST_PIPELINES, Pipeline
from embedfleet.api.pods import Drain
from embedfleet.api.service import EmbeddingService
from embedfleet.api.tracing import Tracing

MODELS_FILE = "models.json"
BATCHING_FILE = "batching.json"


class ModelSettings(ContractModel):
    """`models.json`: the models and what else only a restart changes."""

    service: Annotated[str, Field(min_length=1, max_length=63)]
    """Name of the service."""
    models: Annotated[list[ModelSpec], Field(min_length=1, max_length=32)]
    """The models, without their batching."""
    default_model: str | None = None
    """Model of requests that name none."""
    pipelines: Annotated[list[Pipeline], Field(max_length=MOST_PIPELINES)] | None = None
    """The pipelines; unset where there are none."""
    gpu_count: Annotated[int, Field(ge=0, le=64)] = 1
    """GPUs to use; 0 is the CPU."""
    drain: Drain = Field(default_factory=Drain)
    """How the server leaves."""
    api_keys_directory: Annotated[str, Field(max_length=4096)] | None = None
    """Directory with a file for each tenant: its name is the tenant, its content the key. Unset: none is asked."""
    tls_directory: Annotated[str, Field(max_length=4096)] | None = None
    """Directory with `tls.crt` and `tls.key` for the public port. Unset: plain HTTP."""
    tracing: Tracing | None = None
    """Where traces of requests go. Unset: nowhere, unless the environment names a collector."""


class BatchingSettings(ContractModel):
    """`batching.json`: how requests become batches."""

    generation: int = 0
    """`metadata.generation` of the object these values came from; 0 on a laptop."""
    batching: Batching = Field(default_factory=Batching)
    """The service's values."""
    models: dict[str, ModelBatching] = Field(default_factory=dict)
    """What differs for one model, by its name."""

    def for_model(self, name: str) -> Batching:
        """The values in force for model `name`; a view of a model (`NAME:tokens`) has those of its model."""
        return self.batching.for_model(self.models.get(name.partition(":")[0]))


def split(service: EmbeddingService) -> tuple[ModelSettings, BatchingSettings]:
    """The two settings files of a service on this machine; the operator puts over them what differs in a pod."""
    spec = service.spec
    models = ModelSettings(
        service=service.metadata.name,
        models=[model.model_copy(update={"batching": None}) for model in spec.models],
        default_model=spec.default_model,
        pipelines=spec.pipelines or None,
        gpu_count=spec.gpu.count,
        drain=spec.drain.at_once(),
        tracing=spec.tracing,
    )
    own = {model.name: model.batching for model in spec.models if model.batching is not None}
    return models, BatchingSettings(generation=service.metadata.generation or 0, batching=spec.batching, models=own)


def to_json(settings: ContractModel) -> str:
    """The file's text: stable, readable, without what is unset."""
    return settings.model_dump_json(by_alias=True, exclude_none=True, indent=2) + "\n"
