"""The models as `/v1/models` and `/state` show them."""

from typing import Any

from embedfleet_server.engine.engine import Engine
from embedfleet_server.engine.errors import ModelNotFound
from embedfleet_server.engine.protocols import ModelInfo
from embedfleet_server.engine.slots import ModelStatus


def openai(engine: Engine, created: int) -> dict[str, Any]:
    """OpenAI's list, with what it has no field for under `embedfleet`; `created` in Unix seconds."""
    models = [_openai_model(engine, status, created) for status in engine.models()]
    return {"object": "list", "data": models}


def summary(engine: Engine) -> list[dict[str, Any]]:
    """Each model with its state, as `/state` and the operator want it."""
    default = _default(engine)
    return [{"name": status.name, **_details(engine, status, default)} for status in engine.models()]


def _openai_model(engine: Engine, status: ModelStatus, created: int) -> dict[str, Any]:
    limits = {
        "max_inputs": engine.max_inputs,
        "item_timeout_seconds": engine.settings.batching.item_timeout_seconds,
    }
    own = {"service": engine.service, **_details(engine, status, _default(engine)), **limits}
    return {"id": status.name, "object": "model", "created": created, "owned_by": "embedfleet", "embedfleet": own}


def _default(engine: Engine) -> str | None:
    """The model of requests that name none; None when they must name one."""
    try:
        return engine.resolve(None)
    except ModelNotFound:
        return None


def _details(engine: Engine, status: ModelStatus, default: str | None) -> dict[str, Any]:
    return {
        "state": status.state,
        "required": status.required,
        "default": status.name == default,
        "cause": status.cause,
        "deterministic": status.deterministic,
        "deterministic_reason": status.deterministic_reason,
        **_info(status.info),
        "warm_up": _warm_up(engine, status.name),
    }


def _warm_up(engine: Engine, name: str) -> dict[str, Any] | None:
    """What was measured before the model was ready; null where it was not."""
    costs = engine.warm_up(name)
    if costs is None:
        return None
    start = costs.start_seconds
    return {
        "tokens_per_second": {str(length): round(speed, 1) for length, speed in costs.tokens_per_second.items()},
        "start_milliseconds": None if start is None else round(start * 1000, 3),
        "safe_batch_tokens": engine.safe_tokens(name),
        "seconds": round(costs.seconds, 3),
        "reason": costs.reason,
    }


def _info(info: ModelInfo | None) -> dict[str, Any]:
    """What is known only of a loaded model; null until then."""
    names = (
        "task", "dimensions", "native_dimensions", "max_tokens", "fingerprint",
        "precision", "precision_reason", "device", "revision", "padded", "layout", "layout_reason", "normalized",
        "compiled_reason",
    )  # fmt: skip
    known: dict[str, Any] = {name: getattr(info, name, None) for name in names}
    known["devices"] = None if info is None else list(info.devices)
    prompts, matryoshka = (sorted(info.prompts), list(info.matryoshka)) if info is not None else ([], [])
    compiled = dict(info.compiled) if info is not None else {}
    return known | {"prompts": prompts, "matryoshka": matryoshka, "compiled": compiled}
