"""The public port: `/v1/embeddings` and `/v1/models`."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import orjson
from aiohttp import web

from embedfleet_server.app import answers, body, listing, outcome, schedule
from embedfleet_server.app.dimensions import choose
from embedfleet_server.app.errors import ADMITTED, middleware
from embedfleet_server.app.lifecycle import Lifecycle
from embedfleet_server.app.metrics import Metrics
from embedfleet_server.app.requests import EmbeddingRequest, parse
from embedfleet_server.config import Limits
from embedfleet_server.engine.engine import Engine
from embedfleet_server.engine.errors import InvalidRequest

_LARGE_BODY = 256 * 1024  # parsing this takes about a quarter of a millisecond
_T = TypeVar("_T")


def application(engine: Engine, lifecycle: Lifecycle, metrics: Metrics, limits: Limits) -> web.Application:
    """The public application over an engine."""
    doors = _Public(engine, limits)
    app = web.Application(middlewares=[middleware(metrics.request, lifecycle.check_open)])
    app.on_response_prepare.append(_leave_when(lifecycle))
    app.on_cleanup.append(doors.close)
    app.router.add_post("/v1/embeddings", doors.embeddings, expect_handler=body.ignore_expect)
    app.router.add_get("/v1/models", doors.models)
    return app


class _Public:
    """The handlers, with what they share."""

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self._engine, self._limits = engine, limits
        self._created = int(time.time())
        self._codec = ThreadPoolExecutor(1, "codec")

    async def embeddings(self, request: web.Request) -> web.Response:
        """`POST /v1/embeddings`."""
        set_aside, scheduled = _is_partial(request), schedule.of(request.headers)
        asked = await self._parse(await body.read(request, self._limits))
        model = self._engine.resolve(asked.model)
        info = self._engine.info(model)
        if info is not None:
            choose(info, asked.dimensions)  # refused before it costs a forward
        request[ADMITTED] = True
        made = await (outcome.partial if set_aside else outcome.whole)(self._engine, model, asked, scheduled)
        return await self._answer(request, asked, made)

    async def models(self, _: web.Request) -> web.Response:
        """`GET /v1/models`."""
        listed = listing.openai(self._engine, self._created)
        return web.Response(body=orjson.dumps(listed), content_type="application/json")

    async def close(self, _: web.Application) -> None:
        """End the codec's thread."""
        self._codec.shutdown(wait=False)

    async def _parse(self, raw: bytes) -> EmbeddingRequest:
        return await self._run(
            lambda: parse(raw, max_inputs=self._engine.max_inputs, max_characters=self._limits.text_characters),
            elsewhere=len(raw) > _LARGE_BODY,
        )

    async def _answer(self, request: web.Request, asked: EmbeddingRequest, made: outcome.Outcome) -> web.Response:
        dimensions = choose(made.info, asked.dimensions)
        kind = answers.wanted(request.headers.get("Accept"), asked.encoding)
        encoded = await self._run(
            lambda: answers.encode(made, dimensions, kind), elsewhere=answers.is_large(made, dimensions, kind)
        )
        return web.Response(body=encoded.body, headers=encoded.headers, content_type=encoded.content_type)

    async def _run(self, work: Callable[[], _T], *, elsewhere: bool) -> _T:
        """`work` at once, or in the codec's thread where it would hold up the event loop."""
        if not elsewhere:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._codec, work)


def _is_partial(request: web.Request) -> bool:
    """Whether bad inputs are to be set aside; `InvalidRequest` when the header says neither true nor false."""
    said = request.headers.get("X-Embedfleet-Partial", "false").strip().lower()
    if said not in ("true", "false"):
        raise InvalidRequest(f"X-Embedfleet-Partial is {said[:40]!r}: it must be true or false")
    return said == "true"


def _leave_when(lifecycle: Lifecycle) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """Answers that go out while the server closes tell the client to open its next connection elsewhere."""

    async def say_goodbye(_: web.Request, response: web.StreamResponse) -> None:
        if lifecycle.is_closing:
            response.force_close()
            response.headers["Connection"] = "close"

    return say_goodbye
