"""`/openapi.json`, made from the rows of the routes, and `/docs`, a page of our own that shows it."""

from collections.abc import Sequence
from importlib.resources import files

import orjson
from aiohttp import web

from embedfleet_server.app.openapi import document
from embedfleet_server.app.routes import Route

_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing from elsewhere, and no frame of another page around it: people type API keys there."""

_PAGE_HEADERS = {"Content-Security-Policy": _PAGE_POLICY, "X-Content-Type-Options": "nosniff"}


def routes(described: Sequence[Route]) -> list[Route]:
    """The two routes; the document tells of `described` and of itself."""

    async def told(_: web.Request) -> web.Response:
        return web.Response(body=rendered, content_type="application/json")

    own = [
        Route(
            method="GET",
            path="/openapi.json",
            name="openapi",
            handler=told,
            dialect="embedfleet",
            about="This document.",
            gives={"application/json": {"type": "object"}},
            is_open=True,
        ),
        Route(
            method="GET",
            path="/docs",
            name="docs",
            handler=_page,
            dialect="embedfleet",
            about="This document as a page on which requests can be tried.",
            gives={"text/html": {"type": "string"}},
            is_open=True,
        ),
    ]
    rendered = orjson.dumps(document([*described, *own]))
    return own


async def _page(_: web.Request) -> web.Response:
    text = files("embedfleet_server.app").joinpath("docs.html").read_text("utf-8")
    return web.Response(text=text, content_type="text/html", headers=_PAGE_HEADERS)
