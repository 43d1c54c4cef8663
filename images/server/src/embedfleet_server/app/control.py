"""The control socket: the only place that changes anything. A Unix socket, open to this user alone."""

import asyncio
import fcntl
import logging
import os
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from embedfleet_server.app.connections import Runner
from embedfleet_server.app.errors import middleware
from embedfleet_server.app.signals import StopSignal
from embedfleet_server.app.tuning import Tuning
from embedfleet_server.config import Limits
from embedfleet_server.engine.engine import Engine
from embedfleet_server.engine.errors import InvalidRequest

_log = logging.getLogger(__name__)


class AskedDrain:
    """A drain that may be asked for, and its end, that may be waited for."""

    def __init__(self, stop: StopSignal) -> None:
        self._stop = stop
        self._drained = asyncio.Event()

    def ended(self) -> None:
        """Let those who wait for the end go on."""
        self._drained.set()

    async def asked(self) -> None:
        """Begin, unless that has been; returns once everything accepted is answered."""
        self._stop.ask()
        await self._drained.wait()


def application(engine: Engine, tuning: Tuning, drain: AskedDrain) -> web.Application:
    """GET `/stats`; POST `/drain` and the others.

    `/pause`, `/resume` take {"model"}, or {} for all, `/set` fields of spec.batching, `/unset` and `/drain` nothing.
    """
    doors = _Control(engine, tuning, drain)
    app = web.Application(middlewares=[middleware(lambda code: None, lambda: None)])
    app.router.add_get("/stats", doors.stats)
    for path in ("pause", "resume", "set", "unset", "drain"):
        app.router.add_post(f"/{path}", getattr(doors, path))
    return app


class AlreadyServed(Exception):
    """Another process serves the same service; the message names the file by which that is known."""


class ControlSocket:
    """The listener; the socket file goes away with it. Who has it holds a lock, which ends with its process."""

    def __init__(self, engine: Engine, tuning: Tuning, path: Path, drain: AskedDrain) -> None:
        app = application(engine, tuning, drain)
        self._runner = Runner(app, Limits(), lambda code: None, access_log=None)
        self._path = path
        self._lock = _Lock(path.with_suffix(".lock"))

    async def start(self) -> None:
        """Listen; a file left by a server that is gone is taken over. `AlreadyServed` where its server lives."""
        await asyncio.to_thread(self._lock.take)
        await asyncio.to_thread(self._path.unlink, missing_ok=True)
        await self._runner.setup()
        await web.UnixSite(self._runner, self._path).start()
        await asyncio.to_thread(self._path.chmod, 0o600)

    async def stop(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()
        if self._lock.is_held:
            await asyncio.to_thread(self._path.unlink, missing_ok=True)
            self._lock.drop()


class _Lock:
    """A file that one process at a time holds; it stays, since who waits for one that is removed holds nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    @property
    def is_held(self) -> bool:
        """Whether it is ours."""
        return self._file is not None

    def take(self) -> None:
        """Raises `AlreadyServed`."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise AlreadyServed(
                f"service {self._path.stem} is served by another process here: it holds {self._path}"
            ) from None
        self._file = file

    def drop(self) -> None:
        """Let others take it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


class _Control:
    """The handlers."""

    def __init__(self, engine: Engine, tuning: Tuning, drain: AskedDrain) -> None:
        self._engine, self._tuning, self._drain = engine, tuning, drain

    async def stats(self, _: web.Request) -> web.Response:
        """Queues, counts, values in force and overrides."""
        return self._answer()

    async def pause(self, request: web.Request) -> web.Response:
        """Start nothing of a model, or of all."""
        return await self._pause(request, paused=True)

    async def resume(self, request: web.Request) -> web.Response:
        """Start again."""
        return await self._pause(request, paused=False)

    async def set(self, request: web.Request) -> web.Response:
        """Override batching values; all of them or, when one is wrong, none."""
        values = await _object(request)
        if not values:
            raise InvalidRequest("nothing to set: give at least one field of spec.batching")
        self._tuning.override(values)
        return self._answer()

    async def unset(self, _: web.Request) -> web.Response:
        """Take every override back."""
        self._tuning.clear()
        return self._answer()

    async def drain(self, _: web.Request) -> web.Response:
        """Begin the drain; answered at its end, whoever began it."""
        await self._drain.asked()
        return web.Response(body=orjson.dumps({"state": "drained"}), content_type="application/json")

    async def _pause(self, request: web.Request, *, paused: bool) -> web.Response:
        self._engine.pause(await _model(request), paused=paused)
        _log.info("paused models are now %s", self._engine.paused)
        return self._answer()

    def _answer(self) -> web.Response:
        in_force = self._engine.settings.batching.model_dump(by_alias=True, exclude_none=True)
        state = {"service": self._engine.service, **self._engine.state(), **self._tuning.state(), "batching": in_force}
        return web.Response(body=orjson.dumps(state), content_type="application/json")


async def _object(request: web.Request) -> dict[str, Any]:
    raw = await request.read()
    try:
        found = orjson.loads(raw) if raw else {}
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise InvalidRequest(f"the body is {type(found).__name__}: it must be an object")
    return found


async def _model(request: web.Request) -> str | None:
    found = await _object(request)
    model = found.pop("model", None)
    if found or not isinstance(model, str | None):
        raise InvalidRequest('the body must be {} for all models, or {"model": NAME}')
    return model
