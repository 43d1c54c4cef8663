"""Who asked, as logs and traces know it: a request id, W3C's `traceparent`, one line of JSON per request at debug."""

import json
import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Middleware

from embedfleet_server.app.errors import CODE, Handler
from embedfleet_server.app.keys import TENANT

REQUEST_ID, TRACEPARENT = "X-Request-Id", "traceparent"
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_ID = re.compile(r"[\x21-\x7e]{1,128}")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trace:
    """W3C Trace Context, version 00: whose trace this is, and our own span in it."""

    trace: str
    span: str
    flags: str

    def __str__(self) -> str:
        return f"00-{self.trace}-{self.span}-{self.flags}"


MARKS: Final = web.RequestKey("marks", tuple[str, Trace])
"""Key of a request's id and trace."""


def continued(parent: str | None, span: str, new_trace: str) -> Trace:
    """Our span within the caller's trace; a new trace when it names none, or none that is valid."""
    found = _PARENT.fullmatch((parent or "").strip())
    if found is None or not _is_valid(*found.groups()):
        return Trace(new_trace, span, "00")
    return Trace(found[2], span, found[4])


def request_id(said: str | None, new: str) -> str:
    """The caller's id when it can be echoed, else `new`."""
    return said if said is not None and _ID.fullmatch(said) else new


def middleware(clock: Callable[[], float] = time.perf_counter) -> Middleware:
    """Marks every request with its id and trace, and tells of it once it is answered."""

    @web.middleware
    async def mark(request: web.Request, handler: Handler) -> web.StreamResponse:
        headers = request.headers
        trace = continued(headers.get(TRACEPARENT), secrets.token_hex(8), secrets.token_hex(16))
        request[MARKS] = request_id(headers.get(REQUEST_ID), trace.trace), trace
        began, status = clock(), 499  # what nginx logs for a client that went away
        try:
            response = await handler(request)
            status = response.status
        finally:
            if _log.isEnabledFor(logging.DEBUG):
                _log.debug("request %s", _line(request, status, clock() - began))
        return response

    return mark


async def answer_marks(request: web.Request, response: web.StreamResponse) -> None:
    """Every answer names its request and its span; for `on_response_prepare`."""
    if MARKS in request:
        marked, trace = request[MARKS]
        response.headers[REQUEST_ID] = marked
        response.headers[TRACEPARENT] = str(trace)


def _is_valid(version: str, trace: str, span: str, flags: str, more: str | None) -> bool:
    """As the specification says: no id of zeros, no version ff, and nothing after the flags in version 00."""
    return version != "ff" and bool(int(trace, 16)) and bool(int(span, 16)) and not (version == "00" and more)


def _line(request: web.Request, status: int, seconds: float) -> str:
    """Neither the body nor a key is in it."""
    marked, trace = request[MARKS]
    return json.dumps(
        {
            "id": marked,
            "trace": trace.trace,
            "span": trace.span,
            "method": request.method,
            "path": request.path[:200],
            "status": status,
            "code": request.get(CODE, ""),
            "milliseconds": round(seconds * 1000, 3),
            "tenant": request.get(TENANT, ""),
            "remote": request.remote,
        }
    )
