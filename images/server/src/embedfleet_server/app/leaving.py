"""The one way a drain takes, whether a signal began it or the hook's request (`control.AskedDrain`)."""

import asyncio
import logging

from embedfleet_server.app.lifecycle import Event, LameDuck, Lifecycle

_log = logging.getLogger(__name__)


async def lame_duck(lifecycle: Lifecycle, times: LameDuck) -> None:
    """Serve on, telling every client to leave, until none is to be expected or the time is up; then refuse."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    if not lifecycle.on(Event.STOP):
        return  # under way, or over
    _log.info("state=%s propagation_seconds=%g quiet_seconds=%g", lifecycle.state.value, times.propagation, times.quiet)
    while (rest := times.rest(began, lifecycle.last_request, loop.time())) > 0:  # noqa: ASYNC110  # requests put the end off
        await asyncio.sleep(rest)
    lifecycle.on(Event.ALONE)
    _log.info("state=%s lame_duck_seconds=%.3f", lifecycle.state.value, loop.time() - began)
