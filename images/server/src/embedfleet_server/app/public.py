"""The public port: the routes of every dialect behind one guard."""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from embedfleet_server.app import answers, docs, openai, pipelines, ranking, tei, trace
from embedfleet_server.app.connections import close_when
from embedfleet_server.app.door import Door
from embedfleet_server.app.errors import middleware
from embedfleet_server.app.in_flight import InFlight
from embedfleet_server.app.journal import Journal, silent
from embedfleet_server.app.lifecycle import Lifecycle
from embedfleet_server.app.metrics import Metrics
from embedfleet_server.app.routes import Routes
from embedfleet_server.app.spans import Spans
from embedfleet_server.config import Limits
from embedfleet_server.engine.engine import Engine
from embedfleet_server.pipelines.driver import Pipelines

Admit = Callable[[web.Request], None]


def anyone(_: web.Request) -> None:
    """Asks for no key."""


def application(
    engine: Engine,
    lifecycle: Lifecycle,
    metrics: Metrics,
    limits: Limits,
    admit: Admit = anyone,
    *,
    in_flight: InFlight | None = None,
    journal: Journal | None = None,
    spans: Spans | None = None,
    graphs: Pipelines | None = None,
    pod: str | None = None,
) -> web.Application:
    """The public application over an engine; `admit` raises what keeps a request out, `spans` traces requests.

    `pod` is the name of the pod, if it is one.
    """
    spans = spans or Spans()
    door = Door(engine, limits, silent if journal is None else journal.accepted, spans)
    routes = table(door, graphs)
    guard = middleware(metrics.request, lifecycle.check_open, _guarded(routes, admit, lifecycle), routes.shape)
    noted = [] if journal is None else [journal.middleware()]
    app = web.Application(middlewares=[trace.middleware(spans), *noted, guard, (in_flight or InFlight()).middleware()])
    app.on_response_prepare.append(close_when(lambda: lifecycle.is_leaving))
    app.on_response_prepare.append(trace.answer_marks)
    if pod is not None:
        app.on_response_prepare.append(_say_where(pod))
    app.on_cleanup.append(door.close)
    routes.add_to(app)
    return app


def table(door: Door, graphs: Pipelines | None = None) -> Routes:
    """Every route of the public port; `graphs` are the pipelines, if there are any."""
    own = pipelines.routes(door, graphs or Pipelines(door.engine))
    rows = [*openai.routes(door), *ranking.routes(door), *tei.routes(door), *own]
    return Routes([*rows, *docs.routes(rows)])


def _guarded(routes: Routes, admit: Admit, lifecycle: Lifecycle) -> Admit:
    """`admit` for all but the open routes, whose callers (probes, browsers) are not what a drain waits for either."""

    def guarded(request: web.Request) -> None:
        route = routes.of(request)
        if route is None or not route.is_open:
            lifecycle.came(asyncio.get_running_loop().time())
            admit(request)

    return guarded


def _say_where(pod: str) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """Which pod it was, to all but those whom a key has kept out."""

    async def say(_: web.Request, response: web.StreamResponse) -> None:
        if response.status != 401:  # HTTP's "unauthorized"
            response.headers[answers.POD] = pod

    return say
