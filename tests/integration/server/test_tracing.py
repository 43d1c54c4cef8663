"""OpenTelemetry out: what a collector gets of real requests, and that nobody waits for one that is away."""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from embedfleet_server.app.spans import Plan
from embedfleet_server.app.tracing import OpenTelemetry, opened
from tests.support.collector import Collector, Seen, collecting
from tests.support.process import ROOT, Process, process
from tests.support.raw import get
from tests.support.served import Served, run, serving

pytestmark = pytest.mark.requirement("S1")
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
SERVER_KIND, ERROR = 2, 2
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50"}
PARTS = ["encode", "forward", "queue", "tokenize"]


def asked(server: Process, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> tuple[int, str, bool]:
    """Status of an answer, the span it names, and whether that is sampled."""
    given = {"Content-Type": "application/json", **(headers or {})}
    response, _ = server.ask("POST", "/v1/embeddings", body, headers=given)
    said = response.headers["traceparent"] or ""
    return response.status, said.split("-")[2], is_sampled(said)


def is_sampled(traceparent: str) -> bool:
    """The lowest of the flags; another says that the trace's id is random."""
    return bool(int(traceparent.split("-")[3], 16) & 1)


def children(spans: list[Seen], parent: str) -> list[str]:
    return sorted(span.name for span in spans if span.parent == parent)


def test_a_request_is_a_tree_of_spans(tmp_path: Path) -> None:
    """The real process: the caller's trace goes on in a server span with HTTP's attributes, its parts below it.

    The span is the one that the answer names; times lie within it; the batch links back; the resource is ours.
    """
    given = SOON | {"OTEL_RESOURCE_ATTRIBUTES": "k8s.pod.name=pod-1"}
    with collecting() as collector, process(tmp_path, tracing={"endpoint": collector.url}, extra=given) as server:
        server.line("is ready at")
        status, span, sampled = asked(server, {"input": ["one two", "three"]}, SAMPLED | {"X-Request-Id": "mine"})
        assert (status, sampled) == (200, True)
        spans = collector.until(6)
        server.stop()
    (root,) = [found for found in spans if found.id == span]
    assert (root.name, root.kind, root.trace, root.parent) == ("POST /v1/embeddings", SERVER_KIND, TRACE, SPAN)
    http = {"http.request.method": "POST", "http.route": "/v1/embeddings", "http.response.status_code": 200}
    ours = {"url.path": "/v1/embeddings", "url.scheme": "http", "embedfleet.request.id": "mine"}
    assert root.attributes.items() >= (http | ours).items()
    assert children(spans, span) == PARTS
    parts = [found for found in spans if found.parent == span]
    assert all(root.began <= part.began <= part.ended <= root.ended for part in parts)
    (batch,) = collector.named("batch")
    assert (batch.parent, batch.links) == ("", ((TRACE, span),))
    figures = {"embedfleet.model": "semantic", "embedfleet.batch.size": 2, "embedfleet.batch.input_tokens": 3}
    assert batch.attributes.items() >= figures.items()
    (forward,) = collector.named("forward")
    assert forward.links == ((batch.trace, batch.id),)
    assert (collector.resource["service.name"], collector.resource["k8s.pod.name"]) == ("fleet", "pod-1")


def test_what_is_no_text_spoils_no_spans(tmp_path: Path) -> None:
    """Headers that are no UTF-8 are told with it escaped: spans that are sent together with theirs arrive too."""
    with collecting() as collector, process(tmp_path, tracing={"endpoint": collector.url}, extra=SOON) as server:
        server.line("is ready at")
        address = urlsplit(server.record.url)
        with socket.create_connection((address.hostname, address.port), timeout=60) as hostile:
            hostile.sendall(get("/nowhere", "User-Agent: \udcff", "X-Request-Id: \udcff"))
            while hostile.recv(4096):
                pass
        asked(server, {"input": "x", "model": "nope"})
        spans = collector.until(2)
        server.stop()
    told = next(span.attributes for span in spans if span.attributes["url.path"] != "/v1/embeddings")
    assert (told["user_agent.original"], told["embedfleet.request.id"]) == ("\\udcff", "\\udcff")


def test_an_error_is_told_by_its_code(tmp_path: Path) -> None:
    """A caller's mistake names its code and is no error of the span; a failure of ours is one; 404s share a name."""
    with collecting() as collector, process(tmp_path, tracing={"endpoint": collector.url}, extra=SOON) as server:
        server.line("is ready at")
        asked(server, {"input": "x", "model": "nope"})
        asked(server, {"input": "BREAK"})
        server.ask("GET", "/nowhere/17")
        spans = [span for span in collector.until(7) if span.kind == SERVER_KIND]
        server.stop()
    found = {span.attributes.get("error.type"): span for span in spans}
    assert (found["model_not_found"].status, found["model_not_found"].attributes["http.response.status_code"]) == (
        0,
        404,
    )
    assert (found["internal"].status, found["internal"].attributes["http.response.status_code"]) == (ERROR, 500)
    assert found["not_found"].name == "GET"


class Traced:
    """A server in this process whose spans go to a collector."""

    def __init__(self, collector_url: str, rate: int | None = None) -> None:
        self.tracing: OpenTelemetry = opened(Plan(f"{collector_url}/v1/traces", rate), "fleet", "1")

    def serving(self) -> Any:
        return serving(spans=self.tracing, observers=[self.tracing])


def traced(collector: Collector, main: Any, rate: int | None = None) -> None:
    """Runs `main` with a server; all spans have come at the end."""

    async def whole() -> None:
        made = Traced(collector.url, rate)
        async with made.serving() as served:
            await main(served)
        await made.tracing.stop(30.0)

    run(whole())


def test_a_batch_of_two_requests_is_linked_to_both(collector: Collector) -> None:
    """Two requests that wait behind a held batch are computed in one: its span has a link to each and no parent."""

    async def main(served: Served) -> None:
        held = asyncio.create_task(served.embed("HOLD"))
        await asyncio.to_thread(served.gate.reached.wait)
        both = [asyncio.create_task(served.embed(text)) for text in ("first", "second here")]
        await served.until(lambda: served.engine.queue_depth("semantic") == 2)
        served.gate.opened.set()
        assert [reply.status for reply in await asyncio.gather(held, *both)] == [200, 200, 200]

    traced(collector, main)
    (batch,) = [span for span in collector.named("batch") if span.attributes["embedfleet.batch.size"] == 2]
    roots = {(span.trace, span.id): span for span in collector.spans if span.kind == SERVER_KIND}
    assert len(batch.links) == 2
    assert set(batch.links) < set(roots)
    for _, parent in batch.links:
        assert children(collector.spans, parent) == PARTS
        (queue,) = [span for span in collector.named("queue") if span.parent == parent]
        assert queue.ended == batch.began


def test_what_the_caller_left_out_is_left_out(collector: Collector) -> None:
    """A parent that is not sampled: no span at all, and the answer goes on in its trace, not sampled."""

    async def main(served: Served) -> None:
        reply = await served.embed("x", headers={"traceparent": f"00-{TRACE}-{SPAN}-00"})
        version, trace, span, flags = reply.headers["traceparent"].split("-")
        assert (version, trace, flags) == ("00", TRACE, "00")
        assert span != SPAN
        await served.embed("y", headers=SAMPLED)

    traced(collector, main)
    assert len(collector.spans) == 6
    assert {span.trace for span in collector.spans if span.name != "batch"} == {TRACE}


def test_a_rate_of_none_leaves_callers_decisions(collector: Collector) -> None:
    """With a rate of 0 only what a caller decided to trace is traced, its batch too."""

    async def main(served: Served) -> None:
        reply = await served.embed("x")
        assert not is_sampled(reply.headers["traceparent"])
        await served.embed("y", headers=SAMPLED)

    traced(collector, main, rate=0)
    assert sorted(span.name for span in collector.spans) == ["POST /v1/embeddings", "batch", *PARTS]


def test_a_collector_that_is_away_costs_spans_only(tmp_path: Path) -> None:
    """Nobody listens there: requests are answered, more than the queue holds, and the end takes its bounded time."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else's either
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        small = SOON | {"OTEL_BSP_MAX_QUEUE_SIZE": "8", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "8"}
        with process(tmp_path, tracing={"endpoint": endpoint}, extra=small) as server:
            server.line("is ready at")
            statuses = [asked(server, {"input": f"text {number}"})[0] for number in range(20)]
            assert statuses == [200] * 20
            assert "drained: finished 0 requests" in server.stop()


def test_the_environment_alone_switches_it_on(tmp_path: Path) -> None:
    """OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME and OTEL_TRACES_SAMPLER are taken as OpenTelemetry's SDK does."""
    with collecting() as collector:
        names = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_SERVICE_NAME": "other"}
        given = SOON | names | {"OTEL_TRACES_SAMPLER": "parentbased_always_off"}
        with process(tmp_path, extra=given) as server:
            server.line("is ready at")
            assert not asked(server, {"input": "x"})[2]
            assert asked(server, {"input": "x"}, SAMPLED)[2]
            collector.until(6)
            server.stop()
    assert collector.resource["service.name"] == "other"
    assert len(collector.spans) == 6


def python(code: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, cwd=ROOT)


def test_without_the_library_the_error_says_what_to_install(tmp_path: Path) -> None:
    """The manifest asks for traces and OpenTelemetry is not there: exit status 2 and the words for pip."""
    settings = {"service": "fleet", "models": [{"name": "m", "source": {"path": "x"}}], "tracing": {}}
    (tmp_path / "models.json").write_text(json.dumps(settings))
    (tmp_path / "batching.json").write_text("{}")
    hidden = (
        "import sys; sys.modules['opentelemetry'] = None; from embedfleet_server.__main__ import main;"
        f"sys.exit(main(['--settings', {str(tmp_path)!r}, '--port', '0']))"
    )
    ended = python(hidden)
    assert ended.returncode == 2
    assert "pip install 'embedfleet-server[tracing]'" in ended.stderr


@pytest.mark.parametrize("asked", [True, False])
def test_a_wrong_variable_is_named(tmp_path: Path, asked: bool) -> None:
    """Where the manifest asks for traces it ends the server; where only the environment does, it runs without."""
    wrong = {"OTEL_BSP_MAX_QUEUE_SIZE": "-1", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    with process(tmp_path, tracing={} if asked else None, extra=wrong) as server:
        if not asked:
            server.line("is ready at")
            assert server.embed("x")[0].status == 200
            server.running.terminate()
        _, said = server.running.communicate(timeout=60)
        assert server.running.returncode == (2 if asked else 0)
    assert "OTEL_" in said
    assert "max_queue_size must be a positive integer" in said


def test_untraced_the_library_is_not_imported(tmp_path: Path) -> None:
    """Nothing of OpenTelemetry is loaded by a server that does not trace."""
    code = "import sys, embedfleet_server.__main__; print(any(n.startswith('opentelemetry') for n in sys.modules))"
    ended = python(code)
    assert ended.stdout.strip() == "False"


@pytest.fixture
def collector() -> Any:
    with collecting() as made:
        yield made
