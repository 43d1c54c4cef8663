"""What a person at a terminal reads: the service, its models, the address, the time to ready."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence

from embedfleet.api.local import LocalRecord
from embedfleet_server.engine.engine import Engine
from embedfleet_server.engine.slots import ModelStatus

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 0.05  # how often the engine is asked whether its models are loaded; nobody waits for more than the text

_COLUMNS = ("model", "task", "dimensions", "max tokens", "precision", "device", "fingerprint")
_FINGERPRINT_SHOWN = 12


def say(text: str) -> None:
    """Print at once; a terminal that went away must not stop a server that drains."""
    with contextlib.suppress(OSError, ValueError):
        print(text, flush=True)


def say_nothing(text: str) -> None:
    """For a server that nobody watches."""


async def tell_start(
    engine: Engine, record: LocalRecord, bound: tuple[str, str], began: float, tell: Callable[[str], None]
) -> None:
    """Tell of the models once none is loading, then of the moment all required ones are loaded (`began`: monotonic).

    `bound`: the URLs of what the public and the observation port listen on, of which `record` has those to be dialled.
    """
    tell(opening(record.service, *bound, len(record.models)))
    await _until(lambda: all(model.state != "Loading" for model in engine.models()))
    tell(table(engine.models()))
    await _until(lambda: engine.ready)
    seconds = time.monotonic() - began
    _log.info("ready service=%s seconds=%.3f", record.service, seconds)
    tell(ready(record.service, record.url, seconds))


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # the engine says how it is when asked, and calls nobody
        await asyncio.sleep(_LOOK_SECONDS)


def opening(service: str, url: str, observe_url: str, models: int) -> str:
    """Printed once the ports listen."""
    noun = "model" if models == 1 else "models"
    return f"embedfleet service {service} listens on {url} (observation: {observe_url}); loading {models} {noun} …"


def table(models: Sequence[ModelStatus]) -> str:
    """A line for each model; one that has no figures says why."""
    rows = [_COLUMNS, *(_cells(model) for model in models)]
    widths = [max(len(row[i]) for row in rows if len(row) == len(_COLUMNS)) for i in range(len(_COLUMNS))]
    widths[0] = max(len(row[0]) for row in rows)
    return "\n".join("  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=False)).rstrip() for row in rows)


def ready(service: str, url: str, seconds: float) -> str:
    """Printed once every required model is loaded."""
    return f"{service} is ready at {url} after {seconds:.1f} s. Ctrl-C drains and stops it."


def _cells(model: ModelStatus) -> tuple[str, ...]:
    info = model.info
    if info is None:
        reason = (
            f": {model.cause}" if model.cause else ", loaded at its first request" if model.state == "Pending" else ""
        )
        return model.name, f"{model.state.lower()}{reason}"
    figures = (str(info.dimensions), str(info.max_tokens), info.precision, ", ".join(info.devices))
    return model.name, info.task, *figures, info.fingerprint[:_FINGERPRINT_SHOWN]
