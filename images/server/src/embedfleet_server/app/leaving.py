"""The drain's two beginnings, a signal and the hook's request, and the one way it then takes."""

import asyncio
import logging
from pathlib import Path

import orjson
from aiohttp import web

from embedfleet_server.app.control import ControlSocket
from embedfleet_server.app.lifecycle import Event, LameDuck, Lifecycle
from embedfleet_server.app.signals import StopSignal
from embedfleet_server.app.tuning import Tuning
from embedfleet_server.engine.engine import Engine

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


class DrainableSocket(ControlSocket):
    """The control socket with `POST /drain`: begins the drain, and answers once everything accepted is answered."""

    def __init__(self, engine: Engine, tuning: Tuning, path: Path, stop: StopSignal) -> None:
        super().__init__(engine, tuning, path)
        self._stop_signal = stop
        self._drained = asyncio.Event()
        self._runner.app.router.add_post("/drain", self._drain)

    def drained(self) -> None:
        """Let those who wait for the end of the drain go on."""
        self._drained.set()

    async def _drain(self, _: web.Request) -> web.Response:
        self._stop_signal.ask()
        await self._drained.wait()
        return web.Response(body=orjson.dumps({"state": "drained"}), content_type="application/json")
