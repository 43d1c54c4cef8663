"""Why a pod does not become ready, left where Kubernetes finds it should the pod be ended for that."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from embedfleet_server.engine.engine import Engine
from embedfleet_server.engine.slots import ModelStatus
from embedfleet_server.termination import leave_word, take_back

_LOOK_SECONDS = 1.0  # a failed load is tried again after 10 s and more; a probe ends nobody within one


def failed(models: Sequence[ModelStatus]) -> ModelStatus | None:
    """The first required model that could not be loaded."""
    return next((model for model in models if model.required and model.state == "Failed"), None)


async def keep(engine: Engine, path: Path, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
    """Write the cause of a required model's failure; take it back once all are loaded. Ends then."""
    told: ModelStatus | None = None
    while not engine.ready:
        now = failed(engine.models())
        if now is not None and now != told:
            told = now
            leave_word(path, "ModelLoadFailed", now.cause or "unknown", now.name)
        await sleep(_LOOK_SECONDS)
    if told is not None:
        take_back(path)
