"""Text embeddings from your own service.

>>> import embedfleet as sdk
>>> sdk.connect("semantic").embed(["a text", "another"]).shape  # doctest: +SKIP
(2, 384)

Names are loaded when first used, so that importing `embedfleet.api` alone brings pydantic and nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedfleet import errors
    from embedfleet.api import EmbeddingService
    from embedfleet.cache import Cache
    from embedfleet.client import AsyncService, Service
    from embedfleet.connection import connect, connect_async
    from embedfleet.diagnosis import Diagnosis, doctor
    from embedfleet.fleet import apply, delete, services
    from embedfleet.managing import ClusterService
    from embedfleet.results import EmbedResult
    from embedfleet.shards import load
    from embedfleet.version import __version__

__all__ = [
    "AsyncService",
    "Cache",
    "ClusterService",
    "Diagnosis",
    "EmbedResult",
    "EmbeddingService",
    "Service",
    "__version__",
    "apply",
    "connect",
    "connect_async",
    "delete",
    "doctor",
    "errors",
    "load",
    "services",
]

_HOME = {
    "AsyncService": "embedfleet.client",
    "Cache": "embedfleet.cache",
    "ClusterService": "embedfleet.managing",
    "Diagnosis": "embedfleet.diagnosis",
    "EmbedResult": "embedfleet.results",
    "EmbeddingService": "embedfleet.api",
    "Service": "embedfleet.client",
    "__version__": "embedfleet.version",
    "apply": "embedfleet.fleet",
    "connect": "embedfleet.connection",
    "connect_async": "embedfleet.connection",
    "delete": "embedfleet.fleet",
    "doctor": "embedfleet.diagnosis",
    "load": "embedfleet.shards",
    "services": "embedfleet.fleet",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("embedfleet.errors")
    if name not in _HOME:
        raise AttributeError(f"module 'embedfleet' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
