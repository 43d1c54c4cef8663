"""A collector of traces on a real socket: takes OTLP over HTTP, decodes the protobuf and keeps the spans."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True, slots=True)
class Seen:
    """One span as it came, ids in hex, times in nanoseconds."""

    name: str
    trace: str
    id: str
    parent: str
    kind: int
    began: int
    ended: int
    status: int
    attributes: dict[str, Any]
    links: tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Collector:
    """What came, from any thread."""

    url: str = ""
    spans: list[Seen] = field(default_factory=list)
    resource: dict[str, Any] = field(default_factory=dict)
    came: threading.Condition = field(default_factory=threading.Condition)

    def until(self, count: int) -> list[Seen]:
        """The spans, once there are at least so many."""
        with self.came:
            assert self.came.wait_for(lambda: len(self.spans) >= count, 30), [span.name for span in self.spans]
            return list(self.spans)

    def named(self, name: str) -> list[Seen]:
        """Those with a name."""
        return [span for span in self.spans if span.name == name]

    async def take(self, request: web.Request) -> web.Response:
        """`POST /v1/traces`."""
        assert request.content_type == "application/x-protobuf"
        export = ExportTraceServiceRequest.FromString(await request.read())
        with self.came:
            for group in export.resource_spans:
                self.resource.update(_values(group.resource.attributes))
                self.spans += [_seen(span) for scope in group.scope_spans for span in scope.spans]
            self.came.notify_all()
        return web.Response(content_type="application/x-protobuf")


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector in a thread of its own."""
    collector, listening = Collector(), threading.Event()
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()

    async def serve() -> None:
        app = web.Application()
        app.router.add_post("/v1/traces", collector.take)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        collector.url = f"http://127.0.0.1:{site.port}"
        listening.set()
        await ended.wait()
        await runner.cleanup()

    def work() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=work, name="collector")
    thread.start()
    assert listening.wait(30)
    try:
        yield collector
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(30)


def _seen(span: Any) -> Seen:
    return Seen(
        span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(), span.kind,
        span.start_time_unix_nano, span.end_time_unix_nano, span.status.code, _values(span.attributes),
        tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
    )  # fmt: skip


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
