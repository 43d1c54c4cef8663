"""Traces by OpenTelemetry, sent as OTLP over HTTP: the only module that knows the library (extra `tracing`).

    POST /v1/embeddings     the request: continues the caller's trace
    ├─ tokenize             waiting for a thread included
    ├─ queue                from admission to the batch that took its inputs; one for each batch
    ├─ forward              that batch's computing, linked to the batch
    └─ encode               rows to bytes
    batch                   a trace of its own, linked to every traced request in it

Spans are put into a bounded queue that a thread of the SDK empties: a collector that is away costs spans, never time.
"""

import asyncio
import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import Token
from typing import Any, ParamSpec

from aiohttp import web
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBasedTraceIdRatio, Sampler, SamplingResult
from opentelemetry.semconv.attributes import (
    client_attributes,
    error_attributes,
    http_attributes,
    network_attributes,
    service_attributes,
    url_attributes,
    user_agent_attributes,
)
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.util.types import Attributes

from embedfleet_server.app.errors import CLIENT_GONE, CODE, printable
from embedfleet_server.app.keys import TENANT
from embedfleet_server.app.spans import Plan, Spans, Trace
from embedfleet_server.engine.observer import ORIGIN, BatchRecord, Observer, Share

_log = logging.getLogger(__name__)
_P = ParamSpec("_P")
_SCOPE = "embedfleet_server"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})


def opened(plan: Plan, service: str, version: str) -> "OpenTelemetry":
    """Tracing as planned; resource, sampler, queue and exporter take what else they need from OTEL_* variables."""
    sampler = None if plan.rate_per_million is None else ParentBasedTraceIdRatio(plan.rate_per_million / 1_000_000)
    provider = TracerProvider(sampler=sampler, resource=_resource(service, version), shutdown_on_exit=False)
    provider.sampler = _Batches(provider.sampler)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(plan.endpoint)))
    return OpenTelemetry(provider)


def quietly(method: Callable[_P, None]) -> Callable[_P, None]:
    """The method, whose errors are logged and fail nobody's request."""

    @functools.wraps(method)
    def safe(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            method(*args, **kwargs)
        except Exception:  # noqa: BLE001  # no fault of a trace is worth a request
            _log.exception("a span is lost")

    return safe


class OpenTelemetry(Spans, Observer):
    """Makes spans of what the public port and the engine tell."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer(_SCOPE)

    def begin(self, request: web.Request, parent: Trace | None) -> "RequestSpan | None":
        """The span of a request; also where the sampler leaves it out, since answers name it all the same."""
        try:
            context, asked = _context(request, parent), _asked(request)
            return RequestSpan(self._tracer.start_span(_name(request), context, SpanKind.SERVER, asked))
        except Exception:  # noqa: BLE001  # no fault of a trace is worth a request
            _log.exception("a request is not traced")
            return None

    @contextmanager
    def _step(self, name: str, request: "RequestSpan") -> Iterator[None]:
        began = time.time_ns()
        try:
            yield
        finally:
            _child(self._tracer, request, name, began, time.time_ns())

    def step(self, name: str) -> AbstractContextManager[None]:
        """A part of the request that is being answered."""
        request = ORIGIN.get()
        return self._step(name, request) if isinstance(request, RequestSpan) else super().step(name)

    @quietly
    def tokenized(self, model: str, seconds: float) -> None:
        """The inputs of the request in whose context this is called were tokenised."""
        request = ORIGIN.get()
        if isinstance(request, RequestSpan):
            now = time.time_ns()
            _child(self._tracer, request, "tokenize", now - _nanoseconds(seconds), now, {"embedfleet.model": model})

    @quietly
    def batch(self, record: BatchRecord) -> None:
        """A batch ended: its own span, and its part in the trace of each of its requests."""
        shares = [(share, share.origin) for share in record.shares() if isinstance(share.origin, RequestSpan)]
        if not shares:
            return
        at = _epoch(asyncio.get_running_loop().time())
        began, ended = at(record.began), at(record.ended)
        links = [Link(request.context, _part(share)) for share, request in shares]
        span = self._tracer.start_span("batch", Context(), links=links, start_time=began, attributes=_batch(record))
        if record.compute_seconds is None:
            span.set_status(StatusCode.ERROR)
        span.end(ended)
        link = Link(span.get_span_context())
        for share, request in shares:
            about: dict[str, str | int] = {"embedfleet.model": record.model, **_part(share)}
            _child(self._tracer, request, "queue", at(share.arrived), began, about)
            _child(self._tracer, request, "forward", began, ended, about, link)

    async def stop(self, seconds: float) -> None:
        """Send what is left; a collector that does not take it is waited for so long."""
        sending = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        sending.start()
        await asyncio.get_running_loop().run_in_executor(None, sending.join, seconds)


class RequestSpan:
    """The span of one request; while it is answered it is the engine's `ORIGIN`, if it is sampled."""

    __slots__ = ("_span", "_token", "context", "trace")

    def __init__(self, span: Span) -> None:
        self._span = span
        self.context = span.get_span_context()
        flags = f"{self.context.trace_flags:02x}"
        self.trace = Trace(f"{self.context.trace_id:032x}", f"{self.context.span_id:016x}", flags)
        self._token: Token[object | None] | None = ORIGIN.set(self) if span.is_recording() else None

    def end(self, request: web.Request, status: int) -> None:
        """The request was answered with `status`, or was left by its client."""
        if self._token is None:
            return
        ORIGIN.reset(self._token)
        self._finish(request, status)

    @quietly
    def _finish(self, request: web.Request, status: int) -> None:
        code = request.get(CODE, "")
        if code != CLIENT_GONE:
            self._span.set_attribute(http_attributes.HTTP_RESPONSE_STATUS_CODE, status)
        if status >= 400:
            self._span.set_attribute(error_attributes.ERROR_TYPE, code or str(status))
        if status >= 500:  # what a caller did wrong is no error of a server's span (HTTP semantic conventions)
            self._span.set_status(StatusCode.ERROR)
        if tenant := request.get(TENANT):
            self._span.set_attribute("embedfleet.tenant", tenant)
        self._span.end()


class _Batches(Sampler):
    """As another sampler decides; but a span without parent that has links is a batch, sampled for its requests."""

    def __init__(self, own: Sampler) -> None:
        self._own = own

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """See `Sampler`."""
        is_batch = bool(links) and not get_current_span(parent_context).get_span_context().is_valid
        sampler = ALWAYS_ON if is_batch else self._own
        return sampler.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """See `Sampler`."""
        return self._own.get_description()


def _resource(service: str, version: str) -> Resource:
    """Who we are; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES have the last word."""
    own: dict[str, Any] = {service_attributes.SERVICE_NAME: service, service_attributes.SERVICE_VERSION: version}
    return Resource.create(own | dict(OTELResourceDetector().detect().attributes))


def _context(request: web.Request, parent: Trace | None) -> Context:
    """With the caller's span as parent, where it sent one."""
    if parent is None:
        return Context()
    state = TraceState.from_header(request.headers.getall("tracestate", []))
    context = SpanContext(
        int(parent.trace, 16), int(parent.span, 16), is_remote=True,
        trace_flags=TraceFlags(int(parent.flags, 16)), trace_state=state,
    )  # fmt: skip
    return set_span_in_context(NonRecordingSpan(context), Context())


def _name(request: web.Request) -> str:
    """Method and route, so that there are few names (HTTP semantic conventions)."""
    method = request.method if request.method in _METHODS else "HTTP"
    route = _route(request)
    return method if route is None else f"{method} {route}"


def _route(request: web.Request) -> str | None:
    resource = request.match_info.route.resource
    return None if resource is None else resource.canonical


def _asked(request: web.Request) -> dict[str, str | int]:
    """What the HTTP semantic conventions ask of a server's span."""
    found = {
        http_attributes.HTTP_REQUEST_METHOD: request.method if request.method in _METHODS else "_OTHER",
        http_attributes.HTTP_ROUTE: _route(request),
        url_attributes.URL_PATH: printable(request.path[:200]),
        url_attributes.URL_SCHEME: request.scheme,
        client_attributes.CLIENT_ADDRESS: request.remote,
        network_attributes.NETWORK_PROTOCOL_VERSION: f"{request.version.major}.{request.version.minor}",
        user_agent_attributes.USER_AGENT_ORIGINAL: printable(request.headers.get("User-Agent", "")[:200]) or None,
        "embedfleet.request.id": printable(request.headers.get("X-Request-Id", "")[:128]) or None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _batch(record: BatchRecord) -> dict[str, str | int]:
    return {
        "embedfleet.model": record.model,
        "embedfleet.batch.size": record.size,
        "embedfleet.batch.tokens": record.tokens,
        "embedfleet.batch.input_tokens": record.own_tokens,
        "embedfleet.batch.failed": record.failed,
        "embedfleet.batch.attempt": record.attempt,
    }


def _part(share: Share) -> dict[str, int]:
    return {"embedfleet.inputs": share.inputs, "embedfleet.tokens": share.tokens}


def _child(
    tracer: Tracer,
    request: RequestSpan,
    name: str,
    began: int,
    ended: int,
    attributes: Attributes = None,
    *links: Link,
) -> None:
    """A part of a request that is over; times in nanoseconds since the epoch."""
    context = set_span_in_context(NonRecordingSpan(request.context), Context())
    tracer.start_span(name, context, links=links, start_time=began, attributes=attributes).end(ended)


def _epoch(now: float) -> Callable[[float], int]:
    """From seconds on the loop's clock, where it is `now`, to nanoseconds since the epoch."""
    offset = time.time_ns() - _nanoseconds(now)
    return lambda when: offset + _nanoseconds(when)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1_000_000_000)
