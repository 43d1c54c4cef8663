"""Health told: each change once, in the log."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from embedfleet_server.engine.engine import Engine
from embedfleet_server.engine.health import Severity, Transition

_log = logging.getLogger(__name__)


def look(engine: Engine) -> None:
    """Judge health now and log what changed since the last look."""
    for change in engine.look():
        finding = change.finding
        worse = change.transition in (Transition.APPEARED, Transition.ESCALATED)
        level = logging.ERROR if finding.severity is Severity.CRITICAL else logging.WARNING
        words = "health: %s %s: %s"
        _log.log(level if worse else logging.INFO, words, finding.code, change.transition.value, finding.message)


async def watch(
    engine: Engine,
    also: Callable[[], None] = lambda: None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Look every `health.intervalSeconds`, for ever, and do what `also` is to be done as often."""
    while True:
        await sleep(engine.settings.batching.health.interval_seconds)
        look(engine)
        also()
