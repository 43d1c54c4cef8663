"""The observation port: read-only answers for probes, Prometheus and the operator."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web

from embedfleet_server.app import listing
from embedfleet_server.app.errors import middleware
from embedfleet_server.app.guards import Guards
from embedfleet_server.app.in_flight import InFlight
from embedfleet_server.app.lifecycle import Lifecycle
from embedfleet_server.app.liveness import Pulse, trouble
from embedfleet_server.app.metrics import CONTENT_TYPE, Metrics
from embedfleet_server.app.tuning import Tuning
from embedfleet_server.app.watching import look
from embedfleet_server.engine.engine import Engine

Clock = Callable[[], float]


def application(
    engine: Engine,
    lifecycle: Lifecycle,
    metrics: Metrics,
    tuning: Tuning,
    guards: Guards,
    in_flight: InFlight,
    clock: Clock = time.monotonic,
) -> web.Application:
    """The observation application; `clock` in seconds."""
    doors = _Observe(engine, lifecycle, metrics, tuning, guards, in_flight, clock)
    app = web.Application(middlewares=[middleware(lambda code: None, lambda: None)])
    for path in ("startup", "live", "ready", "metrics", "state"):
        app.router.add_get(f"/{path}", getattr(doors, path))
    return app


class _Observe:
    """The handlers. GET and HEAD alone are routed, so that nothing can be changed from here."""

    def __init__(
        self,
        engine: Engine,
        lifecycle: Lifecycle,
        metrics: Metrics,
        tuning: Tuning,
        guards: Guards,
        in_flight: InFlight,
        clock: Clock,
    ) -> None:
        self._engine, self._lifecycle, self._metrics, self._clock = engine, lifecycle, metrics, clock
        self._tuning, self._guards, self._in_flight = tuning, guards, in_flight
        self._began = clock()
        self._was_ready = False

    async def startup(self, _: web.Request) -> web.Response:
        """200 once every required model has been loaded; stays so."""
        self._was_ready = self._was_ready or self._engine.ready
        return _probe(None if self._was_ready else self._missing())

    async def live(self, _: web.Request) -> web.Response:
        """200 unless only a restart helps (see `liveness`)."""
        return _probe(trouble(self._pulse()))

    async def ready(self, _: web.Request) -> web.Response:
        """200 while requests are taken and every required model is loaded."""
        if self._lifecycle.is_closing:
            return _probe("the server is shutting down")
        return _probe(None if self._engine.ready else self._missing())

    async def metrics(self, _: web.Request) -> web.Response:
        """Prometheus' text format."""
        return web.Response(body=self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def state(self, _: web.Request) -> web.Response:
        """All that is known, for the operator and for people; looks at health on the way."""
        look(self._engine)
        return _json(self._state())

    def _pulse(self) -> Pulse:
        engine, error = self._engine, self._in_flight.error
        return Pulse(
            is_running=engine.is_running,
            is_leaving=self._lifecycle.is_leaving,
            item_timeout=float(engine.settings.batching.item_timeout_seconds),
            oldest_batches={model.name: engine.ages(model.name)[1] for model in engine.models()},
            lost=None if error is None else str(error),
        )

    def _state(self) -> dict[str, Any]:
        return {
            "service": self._engine.service,
            "lifecycle": self._lifecycle.state.value,
            "ready": self._engine.ready and not self._lifecycle.is_closing,
            "tasks": len(asyncio.all_tasks()),
            "uptime_seconds": round(self._clock() - self._began, 3),
            "models": listing.summary(self._engine),
            **self._engine.state(),
            **self._tuning.state(),
            **self._guards.state(),
        }

    def _missing(self) -> str:
        """Which required models are not loaded, and why."""
        waiting = [model for model in self._engine.models() if model.required and model.state != "Ready"]
        words = [
            f"model {model.name} is {model.state}" + (f" ({model.cause})" if model.cause else "") for model in waiting
        ]
        return "; ".join(words) or "the engine does not run"


def _probe(reason: str | None) -> web.Response:
    if reason is None:
        return _json({"status": "ok"})
    return _json({"status": "unavailable", "reason": reason}, 503)


def _json(value: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")
