"""`spec.weights`: where the weights of hub models are fetched from in a cluster, and where they are kept."""

from typing import Annotated

from pydantic import Field

from embedfleet.api.base import ContractModel, Rule
from embedfleet.api.references import ObjectName, TokenReference


class Cache(ContractModel):
    """The volume that holds fetched weights: a claim that pods share, or else a folder of each pod's own."""

    persistent_volume_claim: ObjectName | None = None
    """Name of a claim. One that a single node may write (ReadWriteOnce) makes every rollout drain first."""
    size_limit: Annotated[str, Field(pattern=r"^[1-9][0-9]*(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$", max_length=20)] | None = None
    """Most that a pod's own folder may hold, such as `20Gi`; a pod that passes it is evicted. Unset: no limit."""

    cel_rules = (
        Rule(
            "!(has(self.persistentVolumeClaim) && has(self.sizeLimit))",
            "persistentVolumeClaim and sizeLimit must not both be set: a claim has a size of its own",
            lambda self: self.get("persistentVolumeClaim") is None or self.get("sizeLimit") is None,
        ),
    )


class Weights(ContractModel):
    """How `huggingFace` sources reach the pods: an init container fetches them before the server starts."""

    cache: Cache = Field(default_factory=Cache)
    """Where fetched weights are kept."""
    token_secret_ref: TokenReference | None = None
    """The hub's token, for what is not public; only the init container gets it."""
    endpoint: (
        Annotated[str, Field(pattern=r"^https?://[-A-Za-z0-9.]+(:[0-9]{1,5})?(/[-A-Za-z0-9._~/]*)?$", max_length=512)]
        | None
    ) = None
    """Address of another hub that speaks the same protocol. Unset: the public one."""
