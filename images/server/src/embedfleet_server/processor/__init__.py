"""`BatchProcessor`: the batching engine around any callable, in process. Needs NumPy; neither torch nor aiohttp."""

from embedfleet_server.processor.config import BatchProcessorConfig, Priority
from embedfleet_server.processor.processor import BatchProcessor
from embedfleet_server.processor.stats import BatchStats

__all__ = ["BatchProcessor", "BatchProcessorConfig", "BatchStats", "Priority"]
