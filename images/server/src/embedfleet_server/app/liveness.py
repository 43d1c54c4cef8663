"""Whether a restart would help. Only then is a server not alive: never for load, memory, one model's failures, a drain.

A blocked event loop needs no rule: it answers no probe. A device's thread that died shows as a batch that never ends.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

STUCK_TIMES = 2
"""A batch is given up at so many times `itemTimeoutSeconds`: after once, nobody waits for its rows any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """A server at one instant."""

    is_running: bool
    """Its engine has been started, and not stopped."""
    is_leaving: bool
    """It ends by itself, within a time of its own."""
    item_timeout: float
    """Seconds after which no caller waits."""
    oldest_batches: Mapping[str, float] = field(default_factory=dict)
    """Seconds for which the oldest batch of each model runs."""
    lost: str | None = None
    """Why its device is lost to it."""


def trouble(pulse: Pulse) -> str | None:
    """What only a restart cures; None when nothing is."""
    if pulse.lost is not None:
        return f"the device is lost: {pulse.lost}"
    if pulse.is_leaving:
        return None
    if not pulse.is_running:
        return "the engine does not run"
    limit = STUCK_TIMES * pulse.item_timeout
    for model, seconds in pulse.oldest_batches.items():
        if seconds > limit:
            return f"a batch of model {model!r} has been running for {seconds:.0f} s, more than {limit:.0f} s"
    return None
