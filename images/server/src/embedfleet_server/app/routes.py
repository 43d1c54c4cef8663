"""What a route is: one row that the router, the error answers and the OpenAPI document are made from."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

from embedfleet_server.app import body
from embedfleet_server.app.errors import Failure, Shape
from embedfleet_server.app.fields import Fields

Dialect = Literal["OpenAI", "text-embeddings-inference", "embedfleet"]
Content = Mapping[str, Mapping[str, Any]]
"""JSON schema of an answer by its media type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method of one path. `name` is its operation id, `takes` the fields of its JSON body."""

    method: Literal["GET", "POST"]
    path: str
    name: str
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    dialect: Dialect
    about: str
    gives: Content
    takes: Fields | None = None
    example: Any = None
    headers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """JSON schema of each request header it reads, beside those of every route."""
    is_open: bool = False
    """Whether it answers without an API key."""


class Routes:
    """All routes of the public port."""

    def __init__(self, rows: Iterable[Route]) -> None:
        self.rows: Sequence[Route] = tuple(rows)
        self._by_path: Mapping[tuple[str, str], Route] = {(row.method, row.path): row for row in self.rows}

    def add_to(self, app: web.Application) -> None:
        """Let `app` serve them."""
        for row in self.rows:
            if row.method == "GET":
                app.router.add_get(row.path, row.handler, expect_handler=body.ignore_expect)
            else:
                app.router.add_post(row.path, row.handler, expect_handler=body.ignore_expect)

    def of(self, request: web.Request) -> Route | None:
        """The route of a request; None where there is none."""
        resource = request.match_info.route.resource
        method = "GET" if request.method == "HEAD" else request.method
        return None if resource is None else self._by_path.get((method, resource.canonical))

    def shape(self, request: web.Request) -> Shape:
        """How errors of a request are written: as the clients of its route expect them."""
        route = self.of(request)
        speaks_tei = route is not None and route.dialect == "text-embeddings-inference"
        return Failure.tei_body if speaks_tei else Failure.body
