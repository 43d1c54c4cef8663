"""One server: an engine behind two ports, from listening to the last answer. Who owns the process calls it."""

import errno
import logging
import ssl
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from embedfleet_server.app import observe, public
from embedfleet_server.app.connections import Runner
from embedfleet_server.app.guards import Guards
from embedfleet_server.app.in_flight import InFlight
from embedfleet_server.app.journal import Journal
from embedfleet_server.app.keys import Keys
from embedfleet_server.app.leaving import lame_duck
from embedfleet_server.app.lifecycle import AT_ONCE, Event, Lifecycle
from embedfleet_server.app.metrics import Metrics
from embedfleet_server.app.parting import part
from embedfleet_server.app.spans import Spans
from embedfleet_server.app.tls import Tls
from embedfleet_server.app.tuning import Tuning
from embedfleet_server.config import Limits
from embedfleet_server.engine.engine import Engine
from embedfleet_server.engine.report import DrainReport
from embedfleet_server.pipelines.driver import Pipelines

_log = logging.getLogger(__name__)
_BACKLOG = 2048  # as many callers may knock at once as wait in a busy queue; the kernel caps it at somaxconn


class CannotListen(Exception):
    """An address cannot be had; the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class Farewell:
    """What a drain did: the engine's report, and how many requests were refused while it went on."""

    drained: DrainReport
    refused: int

    def __str__(self) -> str:
        drained = self.drained
        text = f"finished {_count(drained.finished_requests, 'request')} ({_count(drained.finished_inputs, 'text')})"
        cut_off = f", cut off {drained.failed}" if drained.failed else ""
        return f"{text}, refused {self.refused}{cut_off}"


class Server:
    """Start, then drain, once each."""

    def __init__(
        self,
        engine: Engine,
        metrics: Metrics,
        tuning: Tuning,
        limits: Limits,
        *,
        keys: Keys | None = None,
        tls: Tls | None = None,
        in_flight: InFlight | None = None,
        journal: Journal | None = None,
        spans: Spans | None = None,
        pipelines: Pipelines | None = None,
        pod: str | None = None,
    ) -> None:
        """`keys` and `tls` guard the public port; None leaves it open, and plain.

        `in_flight` is for who may have to end all requests at once; `journal` is told of each; `spans` traces them.
        `pod` is what answers say of where they come from.
        """
        self._engine, self._metrics, self._limits = engine, metrics, limits
        self._tls = None if tls is None else tls.context
        self.lifecycle = Lifecycle()
        guards = Guards(keys, tls)
        admit = public.anyone if keys is None else keys.admit
        in_flight = in_flight or InFlight()
        app = public.application(
            engine,
            self.lifecycle,
            metrics,
            limits,
            admit,
            in_flight=in_flight,
            journal=journal,
            spans=spans,
            graphs=pipelines,
            pod=pod,
        )
        self._public = Runner(app, limits, metrics.request, **_options(limits))
        observed = observe.application(engine, self.lifecycle, metrics, tuning, guards, in_flight)
        self._observe = Runner(observed, limits, lambda code: None, **_options(limits))
        metrics.watch(engine, guards)

    async def start(self, host: str, port: int, observe_port: int) -> tuple[int, int]:
        """Listen, then begin to load; returns the two ports. `CannotListen` leaves nothing open."""
        try:
            ports = (
                await _listen(self._public, host, port, "--port", self._tls),
                await _listen(self._observe, host, observe_port, "--observe-port"),
            )
        except CannotListen:
            await self._cleanup()
            raise
        await self._engine.start()
        return ports

    def bound(self) -> tuple[list[str], list[str]]:
        """What the public and the observation port listen on, as `address:port`; a host name may have several."""
        return _addresses(self._public), _addresses(self._observe)

    async def drain(self, seconds: float) -> Farewell:
        """Refuse what comes, finish what was accepted within `seconds`, close both ports."""
        await lame_duck(self.lifecycle, AT_ONCE)  # unless that has been
        report = await self._engine.stop(seconds)
        await part(self._public, self._limits.parting_seconds)
        await self._cleanup()
        self.lifecycle.on(Event.DRAINED)
        return Farewell(report, self._metrics.codes["shutting_down"])

    async def _cleanup(self) -> None:
        """The observation port last: it tells of the drain as long as there is one."""
        await self._public.cleanup()
        await self._observe.cleanup()


def _options(limits: Limits) -> dict[str, Any]:
    # A body is never decompressed (415 says so before it is read); a client that goes away takes its work along.
    return {
        "access_log": None,
        "handler_cancellation": True,
        "keepalive_timeout": limits.keepalive_seconds,
        "lingering_time": limits.lingering_seconds,
        "shutdown_timeout": limits.shutdown_seconds,
        "auto_decompress": False,
    }


async def _listen(runner: web.AppRunner, host: str, port: int, option: str, tls: ssl.SSLContext | None = None) -> int:
    await runner.setup()
    site = web.TCPSite(runner, host, port, backlog=_BACKLOG, ssl_context=tls)
    try:
        await site.start()
    except OSError as error:
        raise CannotListen(_words(error, host, port, option)) from error
    return site.port


def _addresses(runner: web.AppRunner) -> list[str]:
    return [f"{bracketed(host)}:{port}" for host, port, *_ in runner.addresses]


def bracketed(host: str) -> str:
    """The host as a URL has it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def _words(error: OSError, host: str, port: int, option: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use; {option} N takes another, {option} 0 a free one"
    return f"cannot listen on {host} port {port}: {error.strerror or error}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
