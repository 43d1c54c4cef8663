"""`status`: what the operator tells about a service; the fields that the scale subresource reads."""

from typing import Annotated

from pydantic import Field

from embedfleet.api.base import ContractModel


class EmbeddingServiceStatus(ContractModel):
    """What is, as the operator last saw it."""

    replicas: Annotated[int, Field(ge=0)] = 0
    """Server pods there are."""
    selector: Annotated[str, Field(max_length=1024)] | None = None
    """Label selector of the server pods, as text."""
