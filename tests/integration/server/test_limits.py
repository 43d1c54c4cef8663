"""What a client may not do to the server, over raw sockets: too much, too slowly, too long, or not HTTP at all."""

import asyncio
import json
import logging
import resource
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedfleet_server.app.body import patience
from embedfleet_server.app.connections import lifetime
from embedfleet_server.app.document import decode, values_of
from embedfleet_server.config import Limits
from embedfleet_server.engine.errors import TooLarge
from tests.support.served import Served, run, serving

pytestmark = pytest.mark.requirement("S1")
HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connected(served: Served) -> Streams:
    return await asyncio.open_connection(served.host, served.port)


async def leave(*streams: Streams) -> None:
    for _, writer in streams:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for _, writer in streams), return_exceptions=True)


async def exchange(served: Served, sent: bytes) -> bytes:
    """What the server says to raw bytes until it closes the connection."""
    reader, writer = await connected(served)
    writer.write(sent)
    said = await reader.read()
    await leave((reader, writer))
    return said


async def ask(streams: Streams, text: str = "x") -> tuple[bytes, bytes]:
    """One request on an open connection: the head and the body of its answer."""
    reader, writer = streams
    body = json.dumps({"input": text}).encode()
    writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    return head, await reader.readexactly(length)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",  # TLS spoken to a plain port
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        HEAD + b"Content-Length: 5, 6\r\n\r\n",
        HEAD + b"Content-Length: x\r\n\r\n",
        HEAD + b"Bad Header: 1\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_our_own_400(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """OpenAI's shape, nothing accepted, the connection closed, nothing in the log, counted; others are served on."""
    caplog.set_level(logging.WARNING)

    async def main() -> None:
        async with serving() as served:
            said = await exchange(served, sent + b"\r\n\r\n")
            head, _, body = said.partition(b"\r\n\r\n")
            assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 ")), said
            assert b"application/json" in head
            error = json.loads(body)["error"]
            assert (error["code"], error["accepted"]) == ("invalid_request", False)
            assert (await served.embed("good")).status == 200
            assert b'embedfleet_requests_total{code="invalid_request"} 1.0' in (await served.observe("/metrics")).body
            reader, writer = await asyncio.open_connection(served.host, served.observe_port)
            writer.write(sent + b"\r\n\r\n")
            assert b" 400 " in await reader.readline()
            await leave((reader, writer))

    run(main())
    assert not caplog.records


@pytest.mark.requirement("S6")
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b" 200 "),
        (b"GET /no/such/route HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b" 404 "),
        (b"nonsense\r\n\r\n", b" 400 "),
    ],
)
def test_no_answer_tells_versions(sent: bytes, status: bytes) -> None:
    """`Server` says `embedfleet`, whatever was asked: neither Python's nor aiohttp's version, to look faults up by."""

    async def main() -> None:
        async with serving() as served:
            head, _, body = (await exchange(served, sent)).partition(b"\r\n\r\n")
            assert status in head.splitlines()[0]
            assert [line for line in head.splitlines() if line.startswith(b"Server:")] == [b"Server: embedfleet"]
            assert b"aiohttp" not in head + body

    run(main())


def test_half_a_head_is_not_waited_for() -> None:
    """A head that does not come whole in time is cut off, on a new connection and on one kept alive."""

    async def main() -> None:
        async with serving(limits=Limits(head_seconds=0.05)) as served:
            assert await exchange(served, HEAD) == b""
            kept = await connected(served)
            await ask(kept)
            kept[1].write(HEAD)
            assert await kept[0].read() == b""
            await leave(kept)

    run(main())


def test_a_whole_head_stops_its_clock() -> None:
    """A request that takes longer than its head may is not cut off, nor is an idle connection."""

    async def main() -> None:
        async with serving(limits=Limits(head_seconds=0.05)) as served:
            kept = await connected(served)
            held = asyncio.create_task(ask(kept, "HOLD"))
            await served.until(served.gate.reached.is_set)
            assert await exchange(served, HEAD) == b""  # as long as that takes
            served.gate.opened.set()
            assert (await held)[0].startswith(b"HTTP/1.1 200 ")
            for _ in range(2):
                assert await exchange(served, HEAD) == b""
                assert (await ask(kept))[0].startswith(b"HTTP/1.1 200 ")
            await leave(kept)

    run(main())


def test_a_thousand_idle_connections_leave_others_served() -> None:
    """Half of them idle, half with half a head or half a body: a client that comes after them is served at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))

    async def main() -> None:
        async with serving() as served:
            idle = [await connected(served) for _ in range(1000)]
            for number, (_, writer) in enumerate(idle):
                writer.write((b"", b"", HEAD, HEAD + b"Content-Length: 9\r\n\r\n{")[number % 4])
            assert (await served.embed(["one", "two"])).status == 200
            assert (await served.observe("/ready")).status == 200
            assert (await ask(idle[0]))[0].startswith(b"HTTP/1.1 200 ")
            await leave(*idle)

    try:
        run(main())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_body_that_drips_is_not_waited_for_for_ever() -> None:
    """Past the first 30 s a body must keep a rate: each byte buys less time than a dripper needs."""
    limits = Limits(body_silence_seconds=30, body_bytes_per_second=1000)
    assert patience(0, 0, limits) == 30
    assert patience(100, 29, limits) == pytest.approx(1.1)
    assert patience(100, 31, limits) == 0
    assert patience(10_000_000, 100, limits) == 30

    async def main() -> None:
        async with serving(limits=Limits(body_silence_seconds=0.05, body_bytes_per_second=10**9)) as served:
            streams = await connected(served)
            streams[1].write(HEAD + b"Content-Length: 1000000\r\n\r\n")

            async def drip() -> None:
                while not streams[0].at_eof():
                    streams[1].write(b" ")
                    await served.observe("/live")

            dripping = asyncio.create_task(drip())
            assert (await streams[0].readline()).startswith(b"HTTP/1.1 408 ")
            dripping.cancel()
            await leave(streams)

    run(main())


def test_texts_are_limited_together() -> None:
    """Characters of all texts of a request, token ids of all its lists: one more than allowed is 413."""

    async def main() -> None:
        async with serving(limits=Limits(total_characters=100)) as served:
            assert (await served.embed(["x" * 50, "y" * 50])).status == 200
            for given in (["x" * 50, "y" * 51], [[1] * 60, [2] * 41]):
                reply = await served.embed(given)
                assert (reply.status, reply.error["code"]) == (413, "input_too_large")
                assert "at most 100" in reply.error["message"]

    run(main())


@pytest.mark.parametrize(
    ("body", "fits"),
    [
        (b'{"input":[1,2,3,4]}', True),
        (b'{"input":[1,2,3,4,5,6]}', False),
        (b'{"input":"1,2,3,4,5,6,7,8"}', True),
        (b'{"input":"a\\",1,2,3,4,5,6"}', True),
        (b'{"input":"a\\\\",' + b'"b":1,' * 6 + b'"c":2}', False),
    ],
)
def test_values_are_counted_before_they_are_parsed(body: bytes, fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commas between values count, commas in texts do not, whatever is escaped; too many are never parsed."""
    parsed: list[str] = []

    def parse(text: str) -> dict[str, Any]:
        parsed.append(text)
        return {}

    monkeypatch.setattr("embedfleet_server.app.document._DECODER.decode", parse)
    if fits:
        decode(body, values=5)
    else:
        with pytest.raises(TooLarge, match="more than 5 values"):
            decode(body, values=5)
    assert bool(parsed) is fits


@given(
    st.lists(st.text(alphabet='a,"\\\\'), min_size=1, max_size=6),
    st.integers(1, 7),
)
def test_values_are_counted_right_wherever_a_piece_ends(texts: list[str], piece: int) -> None:
    """Commas, quotes and backslashes in texts mislead no count, however the body is cut into pieces."""
    assert values_of(json.dumps({"input": texts}).encode(), 1000, piece) == len(texts) - 1


def test_connections_are_retired_at_their_age() -> None:
    """The answer that goes out after it says `Connection: close`, and the server closes; no request is lost."""

    async def main() -> None:
        async with serving(limits=Limits(connection_seconds=0.0)) as served:
            streams = await connected(served)
            head, body = await ask(streams)
            assert head.startswith(b"HTTP/1.1 200 ")
            assert b"Connection: close" in head
            assert json.loads(body)["data"]
            assert await streams[0].read() == b""
            await leave(streams)
        async with serving() as served:
            streams = await connected(served)
            assert b"Connection: close" not in (await ask(streams))[0]
            await leave(streams)

    run(main())


def test_ages_differ() -> None:
    """By up to 10 % either way, so that clients who came together do not leave together."""
    assert [lifetime(600, draw) for draw in (0, 0.5, 1)] == pytest.approx([540, 600, 660])
