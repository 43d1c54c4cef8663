"""What a server pod is made of, how it leaves and how its successor comes: `gpu`, `drain`, `rollout`, `podTemplate`."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from embedfleet.api.base import ContractModel, Rule
from embedfleet.api.references import MetadataMap

SHUTDOWN_SECONDS = 5
"""How long the server may go on writing answers once its engine has stopped; aiohttp waits up to twice as long."""
MARGIN_SECONDS = 10
"""What the end of a process takes beside the drain: the hook's start, the last connections (two seconds at
most), loaded models given back."""
_AFTER_REQUESTS = 2 * SHUTDOWN_SECONDS + MARGIN_SECONDS

Strategy = Literal["Auto", "Surge", "DrainFirst"]
Seconds = Annotated[int, Field(ge=0, le=86_400)]


class Gpu(ContractModel):
    """The devices of each replica."""

    count: Annotated[int, Field(ge=0, le=64)] = 1
    """GPUs per replica; 0 serves on the CPU. A laptop without a GPU serves on its CPU and says so."""
    resource_name: Annotated[
        str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$", max_length=317)
    ] = "nvidia.com/gpu"
    """Extended resource the pods ask for; the names of MIG slices and time-sliced GPUs too."""


class Drain(ContractModel):
    """How a server leaves: it serves on until nothing can arrive any more, then finishes what it has accepted."""

    propagation_seconds: Seconds = 15
    """Least time that a leaving pod serves on, until every router has heard that it leaves."""
    quiet_seconds: Seconds = 5
    """After that it serves on until no request has come for so long."""
    max_lame_duck_seconds: Seconds = 30
    """Longest that a leaving pod serves on, however many requests come. A server outside a pod never does."""
    request_seconds: Annotated[int, Field(ge=1, le=86_400)] = 30
    """Longest that a leaving server works on what it has accepted."""

    cel_rules = (
        Rule(
            "self.propagationSeconds <= self.maxLameDuckSeconds",
            "propagationSeconds must not be above maxLameDuckSeconds",
            lambda self: self.get("propagationSeconds", 15) <= self.get("maxLameDuckSeconds", 30),
        ),
        Rule(
            "self.quietSeconds <= self.maxLameDuckSeconds",
            "quietSeconds must not be above maxLameDuckSeconds",
            lambda self: self.get("quietSeconds", 5) <= self.get("maxLameDuckSeconds", 30),
        ),
    )

    @property
    def grace_seconds(self) -> int:
        """The least `terminationGracePeriodSeconds` of a pod, within which every step of the drain has its time."""
        return self.max_lame_duck_seconds + self.request_seconds + _AFTER_REQUESTS

    def at_once(self) -> "Drain":
        """The drain of a server outside a pod: nobody routes to another one, so it does not serve on."""
        return self.model_copy(update={"propagation_seconds": 0, "quiet_seconds": 0, "max_lame_duck_seconds": 0})


class Rollout(ContractModel):
    """How new pods take the place of old ones."""

    strategy: Strategy = "Auto"
    """`Surge`: a new pod first. `DrainFirst`: an old pod leaves first. `Auto`: surge; without room, drain first."""
    wait_for_capacity_seconds: Seconds = 300
    """How long a new pod may find no room before the rollout counts as blocked; a cluster may be adding a node."""


class PodTemplateMetadata(ContractModel):
    """Labels and annotations of the pods, beside the operator's own."""

    labels: MetadataMap | None = None
    """Labels put on the pods."""
    annotations: MetadataMap | None = None
    """Annotations put on the pods."""


class PodTemplateSpec(ContractModel):
    """A Kubernetes pod spec, as much of it as is to differ; the API server judges what stands in it."""

    model_config = ConfigDict(extra="allow")

    termination_grace_period_seconds: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Time that a leaving pod has in all. Unset: what `drain` needs, which is the least it may be."""


class PodTemplate(ContractModel):
    """What is to differ in the pods: a strategic merge, in which container `server` is the server."""

    metadata: PodTemplateMetadata | None = None
    """Labels and annotations."""
    spec: PodTemplateSpec | None = None
    """A pod spec, as much of it as is to differ: resources, nodeSelector, volumes, priorityClassName and so on."""


def grace_rule() -> Rule:
    """A grace period given by hand is no shorter than the drain (a rule of `spec`)."""
    given = "self.podTemplate.spec.terminationGracePeriodSeconds"
    return Rule(
        f"!has(self.podTemplate) || !has(self.podTemplate.spec) || !has({given}) ||"
        f" {given} >= self.drain.maxLameDuckSeconds + self.drain.requestSeconds + {_AFTER_REQUESTS}",
        "podTemplate.spec.terminationGracePeriodSeconds must be at least drain.maxLameDuckSeconds +"
        f" drain.requestSeconds + {_AFTER_REQUESTS}, or a leaving pod would be killed with work in hand",
        lambda self: (
            self["podTemplate"]["spec"]["terminationGracePeriodSeconds"]
            >= (self.get("drain") or {}).get("maxLameDuckSeconds", 30)
            + (self.get("drain") or {}).get("requestSeconds", 30)
            + _AFTER_REQUESTS
        ),
    )
