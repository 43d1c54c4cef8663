"""`/live` and `/ready` for the kubelet, `/metrics` for Prometheus."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from embedfleet_operator.configuration import Configuration


@asynccontextmanager
async def served(
    configuration: Configuration, is_live: Callable[[], bool], metrics: Callable[[], bytes]
) -> AsyncIterator[None]:
    """Answer inside: `/ready` as soon as this runs, `/live` with 503 once the watch has gone deaf."""
    if configuration.observe_port is None:
        yield
        return

    async def live(_: web.Request) -> web.Response:
        return web.Response(text="ok\n") if is_live() else web.Response(status=503, text="the watch hears nothing\n")

    async def ready(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def scrape(_: web.Request) -> web.Response:
        return web.Response(body=metrics(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/live", live), web.get("/ready", ready), web.get("/metrics", scrape)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, configuration.observe_host, configuration.observe_port).start()
        yield
    finally:
        await runner.cleanup()
