"""The engine: the one driver of the batching core."""

from embedfleet_server.engine.delivery import Answer
from embedfleet_server.engine.engine import Engine
from embedfleet_server.engine.observer import BatchRecord
from embedfleet_server.engine.report import DrainReport
from embedfleet_server.engine.slots import ModelConfig, ModelStatus

__all__ = ["Answer", "BatchRecord", "DrainReport", "Engine", "ModelConfig", "ModelStatus"]
