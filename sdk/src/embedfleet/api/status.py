"""`status`: what the operator tells about a service."""

from typing import Annotated, Literal

from pydantic import Field

from embedfleet.api.base import ContractModel

Short = Annotated[str, Field(max_length=1024)]
ConditionStatus = Literal["True", "False", "Unknown"]


class Condition(ContractModel):
    """One statement about the service, in Kubernetes' form; docs/operations.md lists types and reasons."""

    type: Annotated[str, Field(max_length=316)]
    """What it is about."""
    status: ConditionStatus
    """Whether it holds."""
    reason: Annotated[str, Field(max_length=1024)]
    """Why, in one word."""
    message: Annotated[str, Field(max_length=32_768)]
    """Why, and what to do about it."""
    observed_generation: Annotated[int, Field(ge=0)]
    """Generation of the spec that it was judged by."""
    last_transition_time: Annotated[str, Field(max_length=64, json_schema_extra={"format": "date-time"})]
    """When `status` last changed."""


class ModelStatus(ContractModel):
    """One model as the pods report it; what is known only of a loaded model is unset until then."""

    name: Annotated[str, Field(max_length=63)]
    """Name of the model."""
    state: Annotated[str, Field(max_length=64)]
    """Pending, Loading, Ready or Failed in the pod that is worst off; Unknown while no pod answers."""
    task: Short | None = None
    """What it computes."""
    dimensions: Annotated[int, Field(ge=0)] | None = None
    """Length of its vectors."""
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    """Longer inputs are cut to so many tokens."""
    revision: Short | None = None
    """Commit of its repository, where it has one."""
    fingerprint: Short | None = None
    """Same fingerprint, comparable vectors. Unset, too, while pods differ in it."""
    precision: Short | None = None
    """Precision of the forward."""
    device: Short | None = None
    """Device it runs on."""
    message: Annotated[str, Field(max_length=32_768)] | None = None
    """Why it is not loaded, in the server's words."""


class EmbeddingServiceStatus(ContractModel):
    """What is, as the operator last saw it."""

    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """Generation of the spec that this status is about."""
    replicas: Annotated[int, Field(ge=0)] = 0
    """Server pods there are."""
    ready_replicas: Annotated[int, Field(ge=0)] = 0
    """Those of them that take requests."""
    selector: Short | None = None
    """Label selector of the server pods, as text."""
    url: Annotated[str, Field(max_length=512)] | None = None
    """Address of the service: the Ingress' where there is one, else the one within the cluster."""
    batching_generation: Annotated[int, Field(ge=0)] | None = None
    """Oldest generation of the batching values that a pod runs."""
    conditions: Annotated[list[Condition], Field(max_length=16)] = Field(default_factory=list)
    """Statements about the service."""
    models_ready: Annotated[str, Field(max_length=16)] | None = None
    """Models that are loaded in every pod that answers, of all: `2/3`; `?/3` when none answers the operator."""
    models: Annotated[list[ModelStatus], Field(max_length=32)] = Field(default_factory=list)
    """The models as the pods report them."""
