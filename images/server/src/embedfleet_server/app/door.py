"""What the routes of every dialect share: a body read within limits, an engine asked, rows encoded off the loop."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

from aiohttp import web

from embedfleet_server.app import answers, body, outcome, schedule
from embedfleet_server.app.document import LARGE
from embedfleet_server.app.errors import ADMITTED
from embedfleet_server.app.journal import Accepted, silent
from embedfleet_server.app.keys import TENANT
from embedfleet_server.app.requests import EmbeddingRequest
from embedfleet_server.app.spans import Spans
from embedfleet_server.config import Limits
from embedfleet_server.engine.engine import Engine
from embedfleet_server.engine.errors import InvalidRequest

PARTIAL = "X-Embedfleet-Partial"
PARTIAL_HEADER: Mapping[str, Mapping[str, Any]] = {PARTIAL: {"type": "string", "enum": ["true", "false"]}}
"""For the document."""
_T = TypeVar("_T")


class Door:
    """The way from a request to the engine and back."""

    def __init__(self, engine: Engine, limits: Limits, accepted: Accepted = silent, spans: Spans | None = None) -> None:
        """`accepted` hears of each request that the engine takes, `spans` of the steps of its answer."""
        self.engine, self.limits = engine, limits
        self._accepted = accepted
        self._spans = spans or Spans()
        self._codec = ThreadPoolExecutor(1, "codec")

    async def close(self, _: web.Application) -> None:
        """End the codec's thread."""
        self._codec.shutdown(wait=False)

    def scheduled(self, request: web.Request) -> schedule.Schedule:
        """Its place in the queue. Where keys are checked the tenant is the key's, else a digest of what was sent."""
        said = schedule.of(request.headers)
        return replace(said, tenant=request[TENANT]) if TENANT in request else said

    async def read(self, request: web.Request, parse: Callable[[bytes], _T]) -> _T:
        """The body, parsed."""
        raw = await body.read(request, self.limits)
        return await self.run(lambda: parse(raw), elsewhere=len(raw) > LARGE)

    def take(self, request: web.Request) -> None:
        """The request goes to the engine now."""
        request[ADMITTED] = True
        self._accepted(request)

    async def embed(
        self, request: web.Request, asked: EmbeddingRequest, scheduled: schedule.Schedule, *, set_aside: bool = False
    ) -> outcome.Outcome:
        """Vectors; with `set_aside`, NaN for bad inputs. What the model cannot give is refused before a forward."""
        model = self.engine.resolve(asked.model, asked.task)
        info = self.engine.info(model)
        if info is not None:
            outcome.check(asked, info)
        self.take(request)
        return await (outcome.partial if set_aside else outcome.whole)(self.engine, model, asked, scheduled)

    async def answer(self, made: outcome.Outcome, asked: EmbeddingRequest, kind: answers.Format) -> web.Response:
        """The vectors in one of the formats."""
        dimensions = outcome.check(asked, made.info)
        return await self.tell(
            lambda: answers.encode(made, dimensions, kind, normalize=asked.normalize, dtype=asked.dtype),
            large=answers.is_large(made, dimensions, kind),
        )

    async def tell(self, make: Callable[[], answers.Encoded], *, large: bool) -> web.Response:
        """An answer that `make` encodes."""
        with self._spans.step("encode"):
            return _response(await self.run(make, elsewhere=large))

    async def run(self, work: Callable[[], _T], *, elsewhere: bool) -> _T:
        """`work` at once, or in the codec's thread where it would hold up the event loop."""
        if not elsewhere:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._codec, work)


def is_partial(request: web.Request) -> bool:
    """Whether bad inputs are to be set aside; `InvalidRequest` when the header says neither true nor false."""
    said = request.headers.get(PARTIAL, "false").strip().lower()
    if said not in ("true", "false"):
        raise InvalidRequest(f"{PARTIAL} is {said[:40]!r}: it must be true or false")
    return said == "true"


def _response(encoded: answers.Encoded) -> web.Response:
    return web.Response(body=encoded.body, headers=encoded.headers, content_type=encoded.content_type)
