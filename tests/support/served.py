"""The real server over real sockets, with the real engine on fake models, within the test's own event loop."""

import asyncio
import io
import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from embedfleet.api import Batching, BatchingSettings, Pipeline
from embedfleet_server.app.keys import Keys
from embedfleet_server.app.metrics import Metrics
from embedfleet_server.app.server import Server
from embedfleet_server.app.spans import Spans
from embedfleet_server.app.tls import Tls
from embedfleet_server.app.tuning import Tuning
from embedfleet_server.config import Limits
from embedfleet_server.engine.engine import Engine
from embedfleet_server.engine.observer import Observer, Several
from embedfleet_server.engine.protocols import Loader
from embedfleet_server.engine.slots import ModelConfig
from embedfleet_server.engine.views import with_view
from embedfleet_server.engine.watch import Readings
from embedfleet_server.pipelines.driver import Pipelines
from tests.support.fake_model import FakeModel, Gate


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        """The error object; its shape holds for every error there is."""
        error = self.json["error"]
        assert {"message", "type", "code", "param", "accepted"} <= set(error)
        return error


@dataclass(frozen=True, slots=True)
class Served:
    """A running server and a client of it."""

    server: Server
    engine: Engine
    gate: Gate
    session: aiohttp.ClientSession
    host: str
    port: int
    observe_port: int

    async def embed(self, input: Any, *, headers: Mapping[str, str] | None = None, **fields: Any) -> Reply:  # noqa: A002  # the wire's word
        """`POST /v1/embeddings`."""
        return await self.post(json.dumps({"input": input, **fields}).encode(), headers=headers)

    async def post(self, body: Any, *, headers: Mapping[str, str] | None = None) -> Reply:
        """`POST /v1/embeddings` with a raw body."""
        if isinstance(body, bytes) and body:
            body = io.BytesIO(body)  # aiohttp warns of large bodies given as bytes
        given = {"Content-Type": "application/json", **(headers or {})}
        return await self.ask("POST", "/v1/embeddings", data=body, headers=given)

    async def ask(self, method: str, path: str, **options: Any) -> Reply:
        """Any request to the public port."""
        return await self._ask(self.port, method, path, **options)

    async def observe(self, path: str, method: str = "GET") -> Reply:
        """Any request to the observation port."""
        return await self._ask(self.observe_port, method, path)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the server work until `condition` holds; each look is a round trip to it."""
        while not condition():
            await self.observe("/live")

    async def _ask(self, port: int, method: str, path: str, **options: Any) -> Reply:
        async with self.session.request(method, f"http://{self.host}:{port}{path}", **options) as response:
            return Reply(response.status, response.headers, await response.read())


@asynccontextmanager
async def serving(
    models: Mapping[str, Loader] | None = None,
    *,
    limits: Limits | None = None,
    lazy: bool = False,
    wait: bool = True,
    keys: Keys | None = None,
    tls: Tls | None = None,
    spans: Spans | None = None,
    observers: Sequence[Observer] = (),
    default_model: str | None = None,
    pipelines: Sequence[Pipeline] = (),
    pod: str | None = None,
    warm_up: float = 0.0,
    readings: Readings = dict,
    **batching: Any,
) -> AsyncGenerator[Served]:
    """A server on free ports, its models loaded (if `wait`); stopped at the end, nothing left behind.

    `warm_up` is what its models may be measured for, in seconds.
    """
    gate = Gate()
    given = models or {"semantic": lambda: FakeModel(hold=gate)}
    plain = [ModelConfig(name, loader, lazy=lazy, required=not lazy) for name, loader in given.items()]
    configs = {config.name: config for one in plain for config in (with_view(one) if pipelines else [one])}
    metrics = Metrics()
    settings = BatchingSettings(generation=7, batching=Batching(**batching))
    engine = Engine(
        "fleet", configs, settings, observer=Several(metrics, *observers), default_model=default_model,
        warm_up_seconds=warm_up, readings=readings,
    )  # fmt: skip
    tuning = Tuning(engine, Path("no-such-directory"))
    graphs = Pipelines(engine, pipelines)
    server = Server(
        engine, metrics, tuning, limits or Limits(), keys=keys, tls=tls, spans=spans, pipelines=graphs, pod=pod
    )
    ports = await server.start("127.0.0.1", 0, 0)
    async with aiohttp.ClientSession() as session:
        served = Served(server, engine, gate, session, "127.0.0.1", *ports)
        try:
            if wait:
                await served.until(lambda: engine.ready)
            yield served
        finally:
            gate.opened.set()
            if not server.lifecycle.is_closing:
                await server.drain(10.0)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine; one that hangs fails instead."""

    async def limited() -> None:
        async with asyncio.timeout(60):
            await main

    asyncio.run(limited())
