"""Who asked, as logs and traces know it: a request id, W3C's `traceparent`, one line of JSON per request at debug."""

import json
import logging
import re
import secrets
import time
from collections.abc import Callable
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Middleware

from embedfleet_server.app.errors import CODE, Handler
from embedfleet_server.app.keys import TENANT
from embedfleet_server.app.spans import Spans, Trace

REQUEST_ID, TRACEPARENT = "X-Request-Id", "traceparent"
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_ID = re.compile(r"[\x21-\x7e]{1,128}")
_log = logging.getLogger(__name__)


MARKS: Final = web.RequestKey("marks", tuple[str, Trace])
"""Key of a request's id and trace."""


def parent_of(header: str | None) -> Trace | None:
    """The caller's span; None where it names none, or none that is valid."""
    found = _PARENT.fullmatch((header or "").strip())
    if found is None or not _is_valid(*found.groups()):
        return None
    return Trace(found[2], found[3], found[4])


def continued(parent: Trace | None, span: str, new_trace: str) -> Trace:
    """Our span within the caller's trace, or in a new one."""
    return Trace(new_trace, span, "00") if parent is None else Trace(parent.trace, span, parent.flags)


def request_id(said: str | None, new: str) -> str:
    """The caller's id when it can be echoed, else `new`."""
    return said if said is not None and _ID.fullmatch(said) else new


def middleware(spans: Spans | None = None, clock: Callable[[], float] = time.perf_counter) -> Middleware:
    """Marks every request with its id and trace, and tells of it once it is answered; `spans` traces it."""
    spans = spans or Spans()

    @web.middleware
    async def mark(request: web.Request, handler: Handler) -> web.StreamResponse:
        headers = request.headers
        parent = parent_of(headers.get(TRACEPARENT))
        span = spans.begin(request, parent)
        trace = continued(parent, secrets.token_hex(8), secrets.token_hex(16)) if span is None else span.trace
        request[MARKS] = request_id(headers.get(REQUEST_ID), trace.trace), trace
        began, status = clock(), 499  # what nginx logs for a client that went away
        try:
            response = await handler(request)
            status = response.status
        finally:
            if span is not None:
                span.end(request, status)
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
