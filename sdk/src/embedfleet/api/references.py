"""How a manifest names other objects of the cluster, and the small types that several groups share."""

from collections.abc import Sequence
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from embedfleet.api.base import ContractModel

_Entry = TypeVar("_Entry")

LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
"""A DNS-1123 label: what Kubernetes asks of a namespace's name."""
SUBDOMAIN_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
"""A DNS-1123 subdomain: what Kubernetes asks of most names."""

ObjectName = Annotated[str, Field(pattern=SUBDOMAIN_PATTERN, max_length=253)]
NamespaceName = Annotated[str, Field(pattern=LABEL_PATTERN, max_length=63)]
SecretKey = Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)]
Image = Annotated[str, Field(pattern=r"^[A-Za-z0-9][-A-Za-z0-9._/:@]*$", max_length=512)]
"""An image's reference as a container runtime takes it; the registry is the judge of the rest."""
RelativePath = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][-A-Za-z0-9._/]*$", max_length=512)]
"""A path below the root of a volume; `..` is refused by a rule of the type that has it."""
MetadataMap = Annotated[dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=32)]
"""Labels or annotations; the API server judges keys and values where they end up."""


def _unique(entries: list[_Entry]) -> list[_Entry]:
    if len({repr(entry) for entry in entries}) < len(entries):
        raise PydanticCustomError("rule", "{text}", {"text": "entries must be unique"})
    return entries


Unique = AfterValidator(_unique)
"""The Python side of what an API server asks of a list that is a set, or is keyed by a name."""


class SecretReference(ContractModel):
    """A Secret of the service's namespace."""

    name: ObjectName
    """Name of the Secret."""


class TokenReference(ContractModel):
    """One key of a Secret of the service's namespace."""

    name: ObjectName
    """Name of the Secret."""
    key: SecretKey = "token"
    """Key within it."""


def climbs(path: str) -> bool:
    """Whether a path leaves the folder it starts in."""
    return ".." in _parts(path)


def _parts(path: str) -> Sequence[str]:
    return path.split("/")
