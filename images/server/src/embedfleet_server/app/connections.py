"""One connection: how long it lives, and what is said to a client that does not speak HTTP.

aiohttp's own handler of a connection, with four differences: broken framing is answered in our shape and not logged as
an error, a request line with its headers must be there in time, an answer must be read in time, and each connection has
an age at which it is retired.
"""

import asyncio
import random
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from embedfleet_server.app.errors import ADMITTED, HTTP, Failure, describe, describe_http, printable
from embedfleet_server.app.unread import Unread
from embedfleet_server.config import Limits

SERVER = "embedfleet"
"""What the header of that name says: not which versions of what, as aiohttp would."""
_LINE_BYTES = 8000  # of a request line's target; RFC 9112 asks for so many at least
_FIELD_BYTES = 8190  # of a header field, as aiohttp has it; another number, so that its error tells which was too long
_FIELDS = "Too many headers"  # what its error begins with where there are more than 128
_JITTER = 0.1  # of the age, either way: connections that were opened together are not retired together


def lifetime(seconds: float, draw: float) -> float:
    """How long a connection lives, in seconds; `draw` is from 0 to 1."""
    return seconds * (1 - _JITTER + 2 * _JITTER * draw)


class Connection(RequestHandler):
    """One connection to the public port."""

    def __init__(self, *arguments: Any, limits: Limits, count: Callable[[str], None], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._limits, self._count = limits, count
        self._began = self._loop.time()
        self._retires = self._began + lifetime(limits.connection_seconds, random.random())  # noqa: S311  # jitter
        self._head: asyncio.TimerHandle | None = None
        self._unread: Unread | None = None

    def awaits_request(self, since: float) -> bool:
        """Whether a request is on its way as far as can be seen: its head has begun, or none has come since the
        connection began, after `since`. A TLS handshake is part of that.
        """
        is_new = self._request_count == 0 and self._began > since
        return is_new or self._head is not None

    @property
    def is_old(self) -> bool:
        """Whether it has reached its age."""
        return self._loop.time() >= self._retires

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        assert isinstance(transport, asyncio.Transport)
        self._unread = Unread(transport, self._loop, self._limits)
        super().connection_made(transport)

    async def start(self) -> None:
        """Serve the connection; what is unsent at its end is not kept for ever either."""
        try:
            await super().start()
        finally:
            if self._unread is not None:
                self._unread.watch()

    def pause_writing(self) -> None:
        """The client reads more slowly than its answer is made, or not at all."""
        super().pause_writing()
        if self._unread is not None:
            self._unread.watch()

    def resume_writing(self) -> None:
        """The client has read nearly all of it."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.stop()

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
        if self._unread is not None:
            self._unread.stop()
            self._unread = None
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is no HTTP. Everything else is answered before it comes here, unless there is a bug."""
        if status == 400:
            failure = no_http(exc, message)
        else:
            super().handle_error(request, status, exc, message)  # logs it; raises where an answer has begun
            failure = describe(exc or TimeoutError(), admitted=request.get(ADMITTED, False))
        self._count(failure.row.code)
        response = _answer(failure)
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


def no_http(exc: BaseException | None, message: str | None) -> Failure:
    """The answer to what aiohttp's parser made nothing of; 414 and 431 say what was too long."""
    if isinstance(exc, LineTooLong) and exc.args[1] == _LINE_BYTES:
        return _refusal(414, f"the path with its query is longer than {_LINE_BYTES} bytes")
    if isinstance(exc, LineTooLong):
        return _refusal(431, f"a header field is longer than {_FIELD_BYTES} bytes")
    words = printable((message or "it cannot be read").replace("\n", " ").strip()[:200])
    status = 431 if words.startswith(_FIELDS) else 400
    return _refusal(status, f"the request does not follow HTTP: {words}")


def _refusal(status: int, words: str) -> Failure:
    return Failure(replace(HTTP[400], status=status), words, accepted=False)


def _answer(failure: Failure) -> web.Response:
    """Of a request that never came to the application."""
    headers = {"Server": SERVER}
    return web.Response(
        body=failure.body(), status=failure.row.status, headers=headers, content_type="application/json"
    )


class Connections(web.Server):
    """Makes a `Connection` of each that is accepted."""

    made: Callable[..., Connection]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._open: weakref.WeakSet[Connection] = weakref.WeakSet()  # nobody tells of a TLS handshake that failed

    def __call__(self) -> RequestHandler:
        """One connection's handler; asyncio calls this for each, before a TLS handshake."""
        made = self.made(self, loop=self._loop, **self._kwargs)
        self._open.add(made)
        return made

    def awaits_request(self, since: float) -> bool:
        """Whether any connection does, see there."""
        return any(connection.awaits_request(since) for connection in self._open)


class Runner(web.AppRunner):
    """aiohttp's runner with connections of our own."""

    __slots__ = ("_limits", "_refused")

    def __init__(self, app: web.Application, limits: Limits, count: Callable[[str], None], **options: Any) -> None:
        super().__init__(app, max_line_size=_LINE_BYTES, max_field_size=_FIELD_BYTES, **options)
        self._limits, self._refused = limits, count
        app.on_response_prepare.append(_say_who)

    def awaits_request(self, since: float) -> bool:
        """Whether any of its connections does, see there; none does before it is set up."""
        return isinstance(self.server, Connections) and self.server.awaits_request(since)

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        server = Connections(
            _shaped(made.request_handler, self._refused),
            request_factory=_spoken(made.request_factory),
            handler_cancellation=made.handler_cancellation,
            loop=asyncio.get_running_loop(),
            **made._kwargs,  # aiohttp offers no other way to choose the class of its connections
        )
        server.made = partial(Connection, limits=self._limits, count=self._refused)
        return server


_UNSPOKEN: Final = web.RequestKey("unspoken", str)
"""Key of the version of HTTP that a request says it is in, where that is none of those spoken here."""


def _spoken(make: Callable[..., web.BaseRequest]) -> Callable[..., web.BaseRequest]:
    """The parser lets versions 0.9 and 2.0 pass, and aiohttp would answer in the same: here it is in 1.1.

    Chunks in 1.0, which a proxy may have read otherwise, end the connection, as RFC 9112 has it.
    """

    def make_spoken(message: Any, *more: Any) -> web.BaseRequest:
        said = message.version
        if said == HttpVersion10 and message.chunked:
            return make(message._replace(should_close=True), *more)
        if said in (HttpVersion10, HttpVersion11):
            return make(message, *more)
        request = make(message._replace(version=HttpVersion11, should_close=True), *more)
        request[_UNSPOKEN] = f"{said.major}.{said.minor}"
        return request

    return make_spoken


Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def _shaped(handle: Handle, count: Callable[[str], None]) -> Handle:
    """What is refused before any middleware, an unspoken version and an unknown `Expect`, gets our shape too."""

    async def handle_shaped(request: web.BaseRequest) -> web.StreamResponse:
        try:
            if _UNSPOKEN not in request:
                return await handle(request)
            failure = _refusal(505, f"HTTP/{request[_UNSPOKEN]} is not spoken here; HTTP/1.1 is")
        except web.HTTPException as error:
            failure = describe_http(error, request.method, request.path)
        count(failure.row.code)
        return _answer(failure)

    return handle_shaped


async def _say_who(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = SERVER


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
