"""One connection: how long it lives, and what is said to a client that does not speak HTTP.

aiohttp's own handler of a connection, with three differences: broken framing is answered in our shape and not logged as
an error, a request line with its headers must be there in time, and each connection has an age at which it is retired.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from embedfleet_server.app.errors import HTTP, Failure, printable
from embedfleet_server.config import Limits

SERVER = "embedfleet"
"""What the header of that name says: not which versions of what, as aiohttp would."""
_JITTER = 0.1  # of the age, either way: connections that were opened together are not retired together


def lifetime(seconds: float, draw: float) -> float:
    """How long a connection lives, in seconds; `draw` is from 0 to 1."""
    return seconds * (1 - _JITTER + 2 * _JITTER * draw)


class Connection(RequestHandler):
    """One connection to the public port."""

    def __init__(self, *arguments: Any, limits: Limits, count: Callable[[str], None], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._limits, self._count = limits, count
        self._retires = self._loop.time() + lifetime(limits.connection_seconds, random.random())  # noqa: S311  # jitter
        self._head: asyncio.TimerHandle | None = None

    @property
    def is_old(self) -> bool:
        """Whether it has reached its age."""
        return self._loop.time() >= self._retires

    def data_received(self, data: bytes) -> None:
        """What came; from its first byte on a request's head has so long to come whole."""
        before = self._request_count
        super().data_received(data)
        if self._request_count > before:
            self._stop_timer()
        elif self._head is None and self._waiter is not None:  # idle until now: this is the start of a head
            self._head = self._loop.call_later(self._limits.head_seconds, self._give_up)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone."""
        self._stop_timer()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is no HTTP. Everything else is answered before it comes here."""
        if status != 400:
            return super().handle_error(request, status, exc, message)
        row = HTTP[400]
        self._count(row.code)
        words = printable((message or "it cannot be read").replace("\n", " ").strip()[:200])
        body = Failure(row, f"the request does not follow HTTP: {words}", accepted=False).body()
        response = web.Response(body=body, status=400, content_type="application/json")
        response.headers["Server"] = SERVER
        response.force_close()
        return response

    def _give_up(self) -> None:
        self._head = None
        if self._waiter is not None and not self._waiter.done():
            self.force_close()

    def _stop_timer(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None


class Connections(web.Server):
    """Makes a `Connection` of each that is accepted."""

    made: Callable[..., RequestHandler] = Connection

    def __call__(self) -> RequestHandler:
        """One connection's handler; asyncio calls this for each."""
        return self.made(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """aiohttp's runner with connections of our own."""

    __slots__ = ("_limits", "_refused")

    def __init__(self, app: web.Application, limits: Limits, count: Callable[[str], None], **options: Any) -> None:
        super().__init__(app, **options)
        self._limits, self._refused = limits, count

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        server = Connections(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            loop=asyncio.get_running_loop(),
            **made._kwargs,  # aiohttp offers no other way to choose the class of its connections
        )
        server.made = partial(Connection, limits=self._limits, count=self._refused)
        return server


def retire(request: web.Request) -> bool:
    """Whether the connection of this request has reached its age."""
    return isinstance(request.protocol, Connection) and request.protocol.is_old


Prepare = Callable[[web.Request, web.StreamResponse], Awaitable[None]]


def close_when(leaving: Callable[[], bool]) -> Prepare:
    """For `on_response_prepare`: tells clients to open their next connection elsewhere."""

    async def say_goodbye(request: web.Request, response: web.StreamResponse) -> None:
        if leaving() or retire(request):
            response.force_close()
            response.headers["Connection"] = "close"

    return say_goodbye
