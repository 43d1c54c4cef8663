"""HTTP itself, by raw bytes to a live server: what clients of every age send, and what only an attacker would."""

import asyncio
import json
from pathlib import Path

import pytest

from embedfleet_server.app.control import AskedDrain, ControlSocket
from embedfleet_server.app.signals import StopSignal
from embedfleet_server.app.tuning import Tuning
from embedfleet_server.config import Limits
from tests.support.graphs import embed, pipeline
from tests.support.raw import Answer, answers, exchange, get, post
from tests.support.served import Served, run, serving
from tests.support.wire_client import hear

pytestmark = pytest.mark.requirement("S1")
GOOD = b'{"input": "x"}'
CHUNKED = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"
CHUNKS = b"e\r\n" + GOOD + b"\r\n0\r\n"
CLOSE = "Connection: close"
GRAPH = pipeline(embed("dense"), name="graph")


async def said(served: Served, sent: bytes, port: int | None = None) -> list[Answer]:
    """The answers to raw bytes, none of which tells a version of ours or of aiohttp's."""
    raw = await exchange(served.host, port or served.port, sent)
    assert b"aiohttp" not in raw
    assert b"Python/" not in raw
    return answers(raw)


SERVED: dict[str, tuple[bytes, list[int]]] = {
    "a query": (post(GOOD, CLOSE, path="/v1/embeddings?api-version=2024-02-01"), [200]),
    "absolute form": (get("http://elsewhere/health"), [200]),
    "HTTP/1.0": (post(GOOD, version="1.0"), [200]),
    "HTTP/1.0 in chunks, and what may be smuggled in": (
        CHUNKED.replace(b"1.1", b"1.0").replace(b"close", b"keep-alive") + b"\r\n" + CHUNKS + b"\r\n" + post(GOOD),
        [200],
    ),
    "HTTP/1.0 that expects": (post(GOOD, "Expect: 100-continue", version="1.0"), [200]),
    "HTTP/1.0 without Host": (b"GET /health HTTP/1.0\r\n\r\n", [200]),
    "chunks": (CHUNKED + b"\r\n" + CHUNKS + b"\r\n", [200]),
    "trailers": (CHUNKED + b"Trailer: X-Sum\r\n\r\n" + CHUNKS + b"X-Sum: 1\r\n\r\n", [200]),
    "chunk extensions": (CHUNKED + b"\r\ne;why=not\r\n" + GOOD + b"\r\n0;x\r\n\r\n", [200]),
    "it was not coded": (post(GOOD, CLOSE, "Content-Encoding: identity"), [200]),
    "an empty Content-Encoding": (post(GOOD, CLOSE, "Content-Encoding:"), [200]),
    "Expect": (post(GOOD, CLOSE, "Expect: 100-continue"), [100, 200]),
    "Expect in capitals": (post(GOOD, CLOSE, "Expect: 100-CONTINUE"), [100, 200]),
    "Expect of something else": (post(GOOD, CLOSE, "Expect: tea"), [200]),
    "Expect of a GET": (get("/health", "Expect: tea"), [200]),
    "an offer of WebSocket": (post(GOOD, "Connection: Upgrade", "Upgrade: websocket") + post(GOOD, CLOSE), [200, 200]),
    "a header that is no UTF-8": (post(GOOD, CLOSE, "X-Request-Id: \udcff", "User-Agent: \udcff"), [200]),
    "pipelined behind errors": (
        post(b"{") + post(GOOD) + post(GOOD, "Content-Encoding: gzip") + post(GOOD, CLOSE),
        [400, 200, 415, 200],
    ),
}


def test_what_clients_send_is_served() -> None:
    """Each way to say the same request has its answer, and requests behind a refused one theirs, in their order."""

    async def main() -> None:
        async with serving() as served:
            for name, (sent, statuses) in SERVED.items():
                assert (name, [answer.status for answer in await said(served, sent)]) == (name, statuses)

    run(main())


def test_a_client_that_offers_http_2_goes_on_in_1() -> None:
    """As Java's own does with its first request, the body in a packet of its own; the connection serves the next."""

    async def main() -> None:
        async with serving() as served:
            reader, writer = await asyncio.open_connection(served.host, served.port)
            offer = post(b"", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: x")
            writer.write(offer.replace(b"Content-Length: 0", b"Content-Length: %d" % len(GOOD)))
            await served.observe("/live")
            writer.write(GOOD)
            for _ in range(2):
                heard = await hear(reader)
                assert heard is not None
                assert (heard.status, heard.closes) == (200, False)
                writer.write(post(GOOD))
            writer.close()
            await writer.wait_closed()

    run(main())


REFUSED: dict[str, tuple[bytes, int, str]] = {
    "no such method": (get("/health", method="BREW"), 400, "invalid_request"),
    "OPTIONS": (get("/v1/embeddings", method="OPTIONS"), 405, "method_not_allowed"),
    "OPTIONS of all": (get("*", method="OPTIONS"), 404, "not_found"),
    "CONNECT": (get("elsewhere:443", method="CONNECT"), 404, "not_found"),
    "a path that is no ASCII": (get("/\udcff"), 400, "invalid_request"),
    "a path that escapes none": (get("/%ff%ed%a0%80"), 404, "not_found"),
    "a path with a line's end": (get("/%0d%0aX: y"), 400, "invalid_request"),
    "a model that is no UTF-8": (get("/v1/models/%ff"), 404, "model_not_found"),
    "a model with half a pair": (get("/v1/models/%ed%a0%80"), 404, "model_not_found"),
    "a pipeline that is no UTF-8": (post(b"{}", CLOSE, path="/v1/pipelines/%ff"), 404, "pipeline_not_found"),
    "a bracket too few": (get("http://[::1/health"), 400, "invalid_request"),
    "no path": (get("health"), 400, "invalid_request"),
    "a long path": (get("/" + "x" * 9000), 414, "invalid_request"),
    "a long query": (get("/health?" + "x" * 9000), 414, "invalid_request"),
    "a long header": (get("/health", "X-Long: " + "x" * 9000), 431, "invalid_request"),
    "a long name": (get("/health", "X" * 9000 + ": long"), 431, "invalid_request"),
    "many headers": (get("/health", *(f"X-{n}: 1" for n in range(200))), 431, "invalid_request"),
    "no Host": (b"GET /health HTTP/1.1\r\n\r\n", 400, "invalid_request"),
    "two Hosts": (get("/health", "Host: y"), 400, "invalid_request"),
    "HTTP/0.9": (b"GET /health\r\n\r\n", 505, "invalid_request"),
    "HTTP/2.0": (get("/health", version="2.0"), 505, "invalid_request"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "invalid_request"),
    "a line on two": (get("/health", "X: a\r\n b"), 400, "invalid_request"),
    "a NUL": (get("/health", "X: a\0b"), 400, "invalid_request"),
    "two lengths": (post(GOOD, CLOSE, "Content-Length: 14"), 400, "invalid_request"),
    "a length and chunks": (CHUNKED + b"Content-Length: 14\r\n\r\n" + CHUNKS + b"\r\n", 400, "invalid_request"),
    "a chunk of no end": (CHUNKED + b"\r\nffffffffffffffffff\r\n", 400, "invalid_request"),
    "many trailers": (CHUNKED + b"\r\n" + CHUNKS + b"X: 1\r\n" * 300 + b"\r\n", 431, "invalid_request"),
    "Expect where nothing is": (get("/nowhere", "Expect: tea"), 417, "invalid_request"),
    "coded by one more": (CHUNKED.replace(b"chunked", b"gzip, chunked") + b"\r\n" + CHUNKS + b"\r\n", 415,
                          "unsupported_media_type"),
    "coded twice": (post(GOOD, CLOSE, "Content-Encoding: identity", "Content-Encoding: gzip"), 415,
                    "unsupported_media_type"),
    "UTF-16": (post('{"input": "x"}'.encode("utf-16"), CLOSE), 400, "invalid_request"),
    "UTF-8 with a mark": (post(b"\xef\xbb\xbf" + GOOD, CLOSE), 400, "invalid_request"),
    "trailing garbage": (post(GOOD + b"x", CLOSE), 400, "invalid_request"),
    "a priority of 5000 digits": (
        post(GOOD, CLOSE, "X-Embedfleet-Priority: " + "9" * 5000), 400, "invalid_request"),
    "a deadline past every float": (
        post(GOOD, CLOSE, "X-Embedfleet-Deadline-Milliseconds: " + "9" * 400), 400, "invalid_request"),
    "a deadline past Python's": (
        post(GOOD, CLOSE, "X-Embedfleet-Deadline-Milliseconds: " + "9" * 5000), 400, "invalid_request"),
    "true for a number": (post(b'{"input": "x", "dimensions": true}', CLOSE), 400, "invalid_request"),
    "a fraction for a number": (post(b'{"input": "x", "dimensions": 4.0}', CLOSE), 400, "invalid_request"),
    "true for an id": (post(b'{"input": [true]}', CLOSE), 422, "invalid_input"),
    "true among ids": (post(b'{"input": [1, true]}', CLOSE), 422, "invalid_input"),
    "lists in lists": (post(b'{"input": [[[1]]]}', CLOSE), 422, "invalid_input"),
    "half a pair for a model": (post(b'{"input": "x", "model": "\\ud800"}', CLOSE), 404, "model_not_found"),
    "half a pair for a field": (post(b'{"input": "x", "\\ud800": 1}', CLOSE), 400, "invalid_request"),
    "half a pair for a prompt": (post(b'{"input": "x", "prompt_name": "\\ud800"}', CLOSE), 400, "invalid_request"),
}  # fmt: skip


def test_what_is_refused_is_refused_in_our_shape(caplog: pytest.LogCaptureFixture) -> None:
    """Status and code of each, nothing accepted, nothing in the log; the server goes on."""

    async def main() -> None:
        async with serving(limits=Limits(lingering_seconds=0.05)) as served:
            for name, (sent, status, code) in REFUSED.items():
                (answer,) = await said(served, sent)
                assert (name, answer.status, answer.json["error"]["code"]) == (name, status, code)
                assert answer.json["error"]["accepted"] is False
                assert answer.headers["content-type"].startswith("application/json")
            assert (await served.embed("good")).status == 200
            assert served.engine.stats().submitted == 1
            metrics = (await served.observe("/metrics")).body.decode()
            count = sum(code == "invalid_request" for _, _, code in REFUSED.values())
            assert f'embedfleet_requests_total{{code="invalid_request"}} {float(count)}' in metrics

    run(main())
    assert not caplog.records


def test_head_is_get_without_its_body() -> None:
    """Of every status, on both ports: the same headers, and nothing after them."""

    async def main() -> None:
        async with serving() as served:
            for port, path, status in (
                (served.port, "/health", 200),
                (served.port, "/v1/models", 200),
                (served.port, "/nowhere", 404),
                (served.port, "/v1/embeddings", 405),
                (served.observe_port, "/ready", 200),
                (served.observe_port, "/nowhere", 404),
            ):
                raw = await exchange(served.host, port, get(path, method="HEAD"))
                head, _, body = raw.partition(b"\r\n\r\n")
                assert (path, head.split()[1], body) == (path, str(status).encode(), b"")

    run(main())


@pytest.mark.requirement("S6")
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (get("/live"), 200),
        (get("/health"), 200),
        (get("/nowhere"), 404),
        (get("/nowhere", "Expect: tea"), 417),
        (get("/live", method="DELETE"), 405),
        (get("/health", method="DELETE"), 405),
        (get("/live", "Expect: 100-continue"), 200),
        (b"nonsense\r\n\r\n", 400),
        (get("/" + "x" * 9000), 414),
        (get("/live", "X-Long: " + "x" * 9000), 431),
        (get("/\udcff"), 400),
        (get("/live", version="2.0"), 505),
    ],
)
def test_no_answer_of_any_port_tells_versions(sent: bytes, status: int) -> None:
    """`Server` says `embedfleet` whatever was asked of the public port or the observation port."""

    async def main() -> None:
        async with serving() as served:
            statuses = set[int]()
            for port in (served.port, served.observe_port):
                for answer in await said(served, sent, port):
                    assert answer.status == 100 or answer.headers["server"] == "embedfleet"
                    statuses.add(answer.status)
            assert status in statuses

    run(main())


@pytest.mark.requirement("S6")
def test_nor_does_the_control_socket(tmp_path: Path) -> None:
    """It speaks HTTP through the same connections, to this user alone."""

    async def main() -> None:
        async with serving() as served:
            tuning, path = Tuning(served.engine, tmp_path), tmp_path / "s.sock"
            control = ControlSocket(served.engine, tuning, path, AskedDrain(StopSignal()))
            await control.start()
            for sent, status in ((get("/stats"), 200), (get("/nowhere"), 404), (b"nonsense\r\n\r\n", 400)):
                reader, writer = await asyncio.open_unix_connection(path)
                writer.write(sent)
                raw = await reader.read()
                (answer,) = answers(raw)
                assert (answer.status, answer.headers["server"]) == (status, "embedfleet")
                assert b"aiohttp" not in raw
                writer.close()
                await writer.wait_closed()
            await control.stop()

    run(main())


def test_a_failure_past_every_door_is_ours_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where even the making of an error's answer fails there is a 500 in our shape, and a traceback in the log."""

    def fails(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("embedfleet_server.app.errors._response", fails)

    async def main() -> None:
        async with serving() as served:
            (answer,) = await said(served, get("/nowhere"))
            assert (answer.status, answer.json["error"]["code"]) == (500, "internal")
            assert answer.headers["server"] == "embedfleet"
            assert (await served.observe("/live")).status == 200

    run(main())
    assert "ZeroDivisionError" in caplog.text


def test_lines_to_a_client_that_knows_no_chunks() -> None:
    """HTTP/1.0, though it asks to keep the connection: the answer ends with it, or its end would never be seen."""

    async def main() -> None:
        async with serving(pipelines=[GRAPH]) as served:
            headers = ("Accept: application/x-ndjson", "Connection: keep-alive")
            sent = post(b'{"inputs": ["a", "b"]}', *headers, path="/v1/pipelines/graph", version="1.0")
            (answer,) = await said(served, sent)
            assert answer.status == 200
            assert "transfer-encoding" not in answer.headers
            assert [json.loads(line)["index"] for line in answer.body.splitlines()] == [0, 1]

    run(main())
