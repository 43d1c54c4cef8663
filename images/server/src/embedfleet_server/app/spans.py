"""The seam between requests and whoever traces them; what stands here traces nothing.

`tracing` fills it with OpenTelemetry where that is configured. A request's span is the engine's `ORIGIN`, so that what
is computed for several requests at once finds all of them.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from embedfleet.api.tracing import Tracing

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_NOTHING = nullcontext()


@dataclass(frozen=True, slots=True)
class Trace:
    """W3C Trace Context, version 00: whose trace this is, and our own span in it."""

    trace: str
    span: str
    flags: str

    def __str__(self) -> str:
        return f"00-{self.trace}-{self.span}-{self.flags}"


class Span(Protocol):
    """The span of one request."""

    @property
    def trace(self) -> Trace:
        """Its place in its trace, as the answer names it."""

    def end(self, request: web.Request, status: int) -> None:
        """The request was answered with `status`, or was left by its client."""


class Spans:
    """Traces nothing."""

    def begin(self, request: web.Request, parent: Trace | None) -> Span | None:
        """The span of a request; None where nothing is traced."""
        return None

    def step(self, name: str) -> AbstractContextManager[None]:
        """A part of the request that is being answered."""
        return _NOTHING

    async def stop(self, seconds: float) -> None:
        """Send what is left, for at most so long."""


@dataclass(frozen=True, slots=True)
class Plan:
    """That requests are traced; what is None is as OpenTelemetry's SDK takes it from the environment."""

    endpoint: str | None = None
    rate_per_million: int | None = None
    is_asked: bool = False
    """By the manifest, so that it must not fail; else the environment names a collector."""


def plan(asked: Tracing | None, environ: Mapping[str, str]) -> Plan | None:
    """Whether requests are traced: as the manifest says, else where the environment names a collector.

    OTEL_SDK_DISABLED=true and OTEL_TRACES_EXPORTER=none switch off either.
    """
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    if asked is not None:
        return Plan(_whole(asked.endpoint), asked.sampling_rate_per_million, is_asked=True)
    return Plan() if any(environ.get(name) for name in _ENDPOINTS) else None


def _whole(endpoint: str | None) -> str | None:
    """The address that spans are posted to (OTLP specification: the path of the signal behind the endpoint's)."""
    if endpoint is None:
        return None
    base = endpoint.rstrip("/")
    return base if base.endswith("/v1/traces") else f"{base}/v1/traces"
