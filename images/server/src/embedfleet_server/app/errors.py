"""From errors to answers: the one table, the OpenAI shape, and the middleware that applies them.

`accepted` says whether the work may have been done: only what failed after the engine took it says true.

AppError (what HTTP itself can do wrong; the rest of the table is `engine/errors.py`)
├── CompressedBody
├── BodyTimeout
└── Unauthorized
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson
from aiohttp import web
from aiohttp.typedefs import Middleware

from embedfleet_server.engine import errors as engine
from embedfleet_server.engine.errors import ItemError
from embedfleet_server.engine.sparing import Sparing

_log = logging.getLogger(__name__)

ADMITTED: Final = web.RequestKey("admitted", bool)
"""Key of a request that was handed to the engine."""
CODE: Final = web.RequestKey("code", str)
"""Key of the code that a request ended with."""
OK, CLIENT_GONE = "ok", "client_gone"
"""Codes of the metrics that are no error of the table."""


class AppError(Exception):
    """What is wrong with a request as HTTP."""


class CompressedBody(AppError):
    """A body with a Content-Encoding: a small one could unpack to any size."""


class BodyTimeout(AppError):
    """The body stopped coming."""


class Unauthorized(AppError):
    """No key, or none of ours. Never says what the key was."""


class OverlongItems(engine.BadItems):
    """Every bad input is bad for its length alone."""


class UnservableRows(engine.BatchFailed):
    """There is no vector for some of the inputs; `errors` lists them and why."""

    def __init__(self, errors: Sequence[ItemError]) -> None:
        super().__init__(f"the model gave no vector for {len(errors)} of the inputs: {errors[0].message}")
        self.errors = tuple(errors)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table. `type` is OpenAI's; `accepted` holds for a request that was handed to the engine."""

    status: int
    code: str
    type: str
    accepted: bool = False


_CALLER, _RATE, _SERVER = "invalid_request_error", "rate_limit_error", "server_error"
_INTERNAL = Row(500, "internal", _SERVER, accepted=True)

TABLE: Mapping[type[BaseException], Row] = {
    engine.InvalidRequest: Row(400, "invalid_request", _CALLER),
    Unauthorized: Row(401, "invalid_api_key", _CALLER),
    engine.ModelNotFound: Row(404, "model_not_found", _CALLER),
    engine.PipelineNotFound: Row(404, "pipeline_not_found", _CALLER),
    BodyTimeout: Row(408, "request_timeout", _CALLER),
    engine.TooLarge: Row(413, "input_too_large", _CALLER),
    OverlongItems: Row(413, "input_too_large", _CALLER),
    CompressedBody: Row(415, "unsupported_media_type", _CALLER),
    engine.BadItems: Row(422, "invalid_input", _CALLER),
    engine.QueueFull: Row(429, "queue_full", _RATE),
    engine.BatchFailed: _INTERNAL,
    engine.ShuttingDown: Row(503, "shutting_down", _SERVER),
    engine.ModelFailing: Row(503, "model_failing", _SERVER),
    engine.ModelLoading: Row(503, "model_loading", _SERVER),
    engine.ModelLoadFailed: Row(503, "model_failed", _SERVER),
    engine.DeviceLost: Row(503, "device_lost", _SERVER, accepted=True),
    engine.TooLate: Row(504, "deadline_exceeded", _CALLER),
    engine.DeadlineExceeded: Row(504, "deadline_exceeded", _SERVER, accepted=True),
}
HTTP: Mapping[int, Row] = {
    400: Row(400, "invalid_request", _CALLER),
    404: Row(404, "not_found", _CALLER),
    405: Row(405, "method_not_allowed", _CALLER),
    413: Row(413, "input_too_large", _CALLER),
}
"""What aiohttp itself refuses, by status."""

TEI_TYPES: Mapping[int, str] = {
    422: "Tokenizer",
    429: "Overloaded",
    500: "Backend",
    503: "Unhealthy",
    504: "Backend",
}
"""text-embeddings-inference's `error_type` by status; every other is "Validation"."""

_LONGEST = 2000  # characters of a message: all that a log or a person takes in

CODES: Final = tuple(sorted({row.code for row in (*TABLE.values(), *HTTP.values())} | {OK, CLIENT_GONE}))
"""Every code there is: the bound of the metrics' label."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as it will be answered."""

    row: Row
    message: str
    accepted: bool
    param: str | None = None
    errors: tuple[ItemError, ...] | None = None
    retry_after: float | None = None

    def body(self) -> bytes:
        """The OpenAI-shaped JSON."""
        error: dict[str, object] = {"message": self.message, "type": self.row.type, "code": self.row.code}
        error |= {"param": self.param, "accepted": self.accepted}
        if self.errors is not None:
            error["errors"] = item_errors(self.errors)
        return orjson.dumps({"error": error})

    def tei_body(self) -> bytes:
        """text-embeddings-inference's shape: `error` is the message; its clients pass over the rest."""
        error: dict[str, object] = {"error": self.message, "error_type": TEI_TYPES.get(self.row.status, "Validation")}
        error |= {"code": self.row.code, "accepted": self.accepted}
        if self.errors is not None:
            error["errors"] = item_errors(self.errors)
        return orjson.dumps(error)

    def headers(self) -> dict[str, str]:
        """`Retry-After` in whole seconds (at least 1, as RFC 9110 has no fractions) and the exact milliseconds."""
        if self.row.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        if self.row.status == 415:
            return {"Accept-Encoding": "identity"}  # what would be taken, as RFC 9110 asks
        if self.retry_after is None:
            return {}
        milliseconds = max(1, math.ceil(self.retry_after * 1000))
        return {
            "Retry-After": str(max(1, math.ceil(self.retry_after))),
            "X-Embedfleet-Retry-After-Milliseconds": str(milliseconds),
        }


def item_errors(errors: Sequence[ItemError]) -> list[dict[str, object]]:
    """The `errors` array of the wire, by index."""
    ordered = sorted(errors, key=lambda error: error.index)
    return [{"index": e.index, "code": e.code, "message": printable(e.message)} for e in ordered]


def cut(text: str) -> str:
    """`text` as long as a message may be: what it quotes of a request may have any length."""
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def printable(text: str) -> str:
    """`text` with lone surrogates escaped: they have no UTF-8 form, and an error must not fail for quoting one."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def describe(error: BaseException, *, admitted: bool) -> Failure:
    """The answer to `error`; `admitted` says whether the engine had the request."""
    row = next((TABLE[kind] for kind in type(error).__mro__ if kind in TABLE), None)
    if row is None:
        message = "the server failed in a way it did not foresee; its log says how"
        return Failure(_INTERNAL, message, accepted=admitted)
    param = "input" if isinstance(error, engine.BadItems) else getattr(error, "param", None)
    return Failure(
        row,
        cut(printable(str(error))),
        accepted=row.accepted and admitted,
        param=None if param is None else printable(param),
        errors=getattr(error, "errors", None),
        retry_after=getattr(error, "retry_after", None),
    )


def describe_http(error: web.HTTPException, method: str, path: str) -> Failure:
    """The answer to what aiohttp itself refused."""
    row = HTTP.get(error.status, Row(error.status, "invalid_request", _CALLER))
    shown = printable(f"{method[:16]} {path[:200]}")
    messages = {404: f"{shown}: there is no such route", 405: f"{shown}: the route does not take this method"}
    return Failure(row, messages.get(error.status, error.reason), accepted=False)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Shape = Callable[[Failure], bytes]
"""Writes the body of an error answer."""


def middleware(
    count: Callable[[str], None],
    check_open: Callable[[], None],
    admit: Callable[[web.Request], None] = lambda request: None,
    shape: Callable[[web.Request], Shape] = lambda request: Failure.body,
) -> Middleware:
    """Errors become answers; `count` hears the code of every request, `check_open` raises what refuses all of them.

    `admit` raises what refuses this one, before anything of its body is read; `shape` chooses how its errors look.
    """
    sparing = Sparing()

    @web.middleware
    async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
        code = CLIENT_GONE  # what is left when the handler is cancelled
        try:
            check_open()
            admit(request)
            response = await handler(request)
            code = OK
        except web.HTTPException as error:
            failure = describe_http(error, request.method, request.path)
            code, response = failure.row.code, _response(failure, shape(request), error)
        except Exception as error:  # noqa: BLE001  # the last door: whatever it is, the caller gets the table's shape
            failure = describe(error, admitted=request.get(ADMITTED, False))
            code, response = failure.row.code, _response(failure, shape(request))
            _tell(request, error, failure, sparing)
        finally:
            request[CODE] = code
            count(code)
        return response

    return answer_errors


def _response(failure: Failure, shape: Shape, raised: web.HTTPException | None = None) -> web.Response:
    headers = failure.headers()
    if raised is not None and "Allow" in raised.headers:
        headers["Allow"] = raised.headers["Allow"]
    response = web.Response(
        body=shape(failure), status=failure.row.status, headers=headers, content_type="application/json"
    )
    if failure.row.status == 408:
        response.force_close()
    return response


def _tell(request: web.Request, error: Exception, failure: Failure, sparing: Sparing) -> None:
    """A traceback only for what nobody foresaw; a warning for failures that are ours; nothing for a caller's."""
    is_foreseen = isinstance(error, engine.EngineError | AppError)
    if is_foreseen and not failure.accepted:
        return
    more = sparing.ask(asyncio.get_running_loop().time())
    if more is None:
        return
    if is_foreseen:
        _log.warning("request failed code=%s message=%s%s", failure.row.code, failure.message, more)
    else:
        _log.error("unexpected error method=%s path=%s%s", request.method, request.path, more, exc_info=error)
