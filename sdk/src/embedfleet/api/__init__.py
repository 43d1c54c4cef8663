"""The contract: `EmbeddingService`, `embedfleet.dev/v1alpha1`, and what follows from it."""

from embedfleet.api.batching import Batching, Health, ModelBatching
from embedfleet.api.models import Dtype, HuggingFaceSource, Loading, ModelSpec, Prompts, Source
from embedfleet.api.pipelines import Pipeline
from embedfleet.api.pods import Drain, Gpu
from embedfleet.api.problems import Problem, problems
from embedfleet.api.service import EmbeddingService, EmbeddingServiceSpec, Metadata
from embedfleet.api.settings import BatchingSettings, ModelSettings, split

__all__ = [
    "Batching",
    "BatchingSettings",
    "Drain",
    "Dtype",
    "EmbeddingService",
    "EmbeddingServiceSpec",
    "Gpu",
    "Health",
    "HuggingFaceSource",
    "Loading",
    "Metadata",
    "ModelBatching",
    "ModelSettings",
    "ModelSpec",
    "Pipeline",
    "Problem",
    "Prompts",
    "Source",
    "problems",
    "split",
]
