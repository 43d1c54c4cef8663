"""The batching server of embedfleet: queues per model, one semaphore, graceful drain.

>>> from embedfleet_server import BatchProcessor  # the same engine for any callable, in process

`BatchProcessor` and its companions are loaded when first used, so that the server's own parts do not pay for them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedfleet_server.processor import BatchProcessor, BatchProcessorConfig, BatchStats, Priority

__all__ = ["BatchProcessor", "BatchProcessorConfig", "BatchStats", "Priority"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'embedfleet_server' has no attribute {name!r}")
    value = getattr(import_module("embedfleet_server.processor"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
