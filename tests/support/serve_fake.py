"""`python -m embedfleet_server` with fake models: the real process, signals and exit, without torch.

Takes the server's own arguments; a forward of the word HOLD waits for a writer of the FIFO `$FAKE_GATE`.
`$FAKE_SECONDS` is how long every forward takes, `$FAKE_LIMITS` a JSON object of fields of `Limits`. With
`$FAKE_DIMENSIONS` vectors have so many, all alike, and cost nothing to make. `$FAKE_SIN` makes it leave in one of the
wrong ways of `SINS`, so that a test of the right way can show that it would notice.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web

from embedfleet_server import __main__ as server
from embedfleet_server.__main__ import configure, leave, run
from embedfleet_server.app import public
from embedfleet_server.app.settings import WrongSettings, load
from embedfleet_server.app.signals import StopSignal
from embedfleet_server.engine.protocols import Encoded, Loader, Model, Rows
from tests.support.fake_model import FakeModel
from tests.support.fake_tasks import FakeRerank


class Slow(FakeModel):
    """Each forward takes `seconds`."""

    seconds = 0.0

    def forward(self, batch: Sequence[Encoded]) -> Rows:
        time.sleep(self.seconds)
        return super().forward(batch)


class Alike(Slow):
    """Vectors of so many dimensions, all the same."""

    def __init__(self, name: str, dimensions: int) -> None:
        super().__init__(name, dimensions=dimensions, native_dimensions=dimensions, matryoshka=())
        self._row = np.full(dimensions, dimensions**-0.5, np.float32)

    def forward(self, batch: Sequence[Encoded]) -> Rows:
        time.sleep(self.seconds)
        return np.tile(self._row, (len(batch), 1))


def _hold() -> None:
    with Path(os.environ["FAKE_GATE"]).open() as fifo:
        fifo.read()


def _loader(name: str) -> Loader:
    """Loads at once, but for a model named `stuck`: its load waits like a held forward. `rerank` is a reranker."""

    def load() -> Model:
        if name == "stuck":
            _hold()
        if name == "rerank":
            return FakeRerank(name)
        alike = os.environ.get("FAKE_DIMENSIONS")
        model = Alike(name, int(alike)) if alike else Slow(name, hold=_hold)
        model.seconds = float(os.environ.get("FAKE_SECONDS", "0"))
        return model

    return load


def _no_drain() -> None:
    """A signal ends the process at once."""

    class Abrupt(StopSignal):
        def install(self) -> None:
            signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))

    vars(server)["StopSignal"] = Abrupt  # a wrong server, made of the right one


def _engine_first() -> None:
    """The engine is stopped when the stop is asked for, while requests still come and are under way."""
    right = server._leave

    async def wrong(served: Any, *arguments: Any) -> None:
        await served._engine.stop(0.0)
        await right(served, *arguments)

    vars(server)["_leave"] = wrong


def _keep_open() -> None:
    """No answer says `Connection: close`."""

    def never(leaving: Callable[[], bool]) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
        async def say_nothing(request: web.Request, response: web.StreamResponse) -> None:
            """Clients stay."""

        return say_nothing

    vars(public)["close_when"] = never


SINS: dict[str, Callable[[], None]] = {"no_drain": _no_drain, "engine_first": _engine_first, "keep_open": _keep_open}


if __name__ == "__main__":
    if sin := os.environ.get("FAKE_SIN"):
        SINS[sin]()
    config = configure(sys.argv[1:], os.environ)
    limits = replace(config.limits, **json.loads(os.environ.get("FAKE_LIMITS", "{}")))
    config = replace(config, limits=limits)
    try:
        given = load(config.settings)
    except WrongSettings as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    leave(run(config, given, lambda spec: _loader(spec.name)))
