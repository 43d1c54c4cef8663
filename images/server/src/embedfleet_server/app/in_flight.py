"""Requests under way, so that all of them can be ended at once, each with an answer: when the device is lost."""

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Middleware

from embedfleet_server.app.errors import Handler
from embedfleet_server.engine.errors import EngineError


class InFlight:
    """The handlers that run; `end` stops them, and whoever comes later gets the same error."""

    def __init__(self, on_end: Callable[[EngineError], None] = lambda error: None) -> None:
        """`on_end` hears of the first end, once the handlers have been stopped."""
        self.error: EngineError | None = None
        self.ended = asyncio.Event()
        self._on_end = on_end
        self._tasks: set[asyncio.Task[Any]] = set()

    def end(self, error: EngineError) -> None:
        """Answer everything with `error`; a second time changes nothing. On the event loop only."""
        if self.error is not None:
            return
        self.error = error
        for task in self._tasks:
            task.cancel()
        self.ended.set()
        self._on_end(error)

    def middleware(self) -> Middleware:
        """Stands inside of what turns errors into answers."""

        @web.middleware
        async def end_together(request: web.Request, handler: Handler) -> web.StreamResponse:
            if (error := self._reason()) is not None:
                raise error
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            try:
                return await handler(request)
            except asyncio.CancelledError:
                if (error := self._reason()) is None:
                    raise  # the client is gone
                task.uncancel()
                raise error from None
            finally:
                self._tasks.discard(task)

        return end_together

    def _reason(self) -> EngineError | None:
        return self.error
