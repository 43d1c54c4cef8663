"""Bad input over a real socket: a clear error of the table, and the server goes on."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from embedfleet_server.config import Limits
from tests.support.fake_model import VOCABULARY
from tests.support.served import Reply, Served, run, serving
from tests.support.wire_client import hear

pytestmark = pytest.mark.requirement("S1")
Ask = Callable[[Served], Coroutine[Any, Any, Reply]]


def embed(value: Any, **fields: Any) -> Ask:
    return lambda served: served.embed(value, **fields)


def post(body: Any, **headers: str) -> Ask:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda served: served.post(body, headers=named)


def many_fields(count: int, more: bytes = b"") -> bytes:
    return b'{"input":"x"' + b"".join(b',"k%d":1' % number for number in range(count)) + more + b"}"


CASES: dict[str, tuple[Ask, int, str, str]] = {
    "unknown model": (embed("x", model="nope"), 404, "model_not_found", "semantic"),
    "empty string": (embed(""), 422, "invalid_input", "input[0]: is empty"),
    "empty list": (embed([]), 400, "invalid_request", "nothing to embed"),
    "10 000 strings": (embed(["x"] * 10_000), 413, "input_too_large", "at most 1000"),
    "a string of 10 MB": (embed("x" * 10_000_000), 413, "input_too_large", "10000000 characters"),
    "token id out of range": (embed([1, VOCABULARY]), 422, "invalid_input", f"0 to {VOCABULARY - 1}"),
    "NaN": (post(b'{"input": "x", "dimensions": NaN}'), 400, "invalid_request", "NaN"),
    "Infinity": (post(b'{"input": [Infinity]}'), 400, "invalid_request", "Infinity"),
    "duplicate keys": (post(b'{"input": "x", "input": "y"}'), 400, "invalid_request", "more than once"),
    "lone surrogate": (post(b'{"input": ["a", "\\udc00"]}'), 422, "invalid_input", "input[1]"),
    "wrong types": (embed([1.5]), 422, "invalid_input", "token ids are whole numbers"),
    "input of another type": (embed({"a": 1}), 400, "invalid_request", "input is an object"),
    "unknown key": (embed("x", dimension=4), 400, "invalid_request", "did you mean 'dimensions'"),
    "unknown encoding_format": (embed("x", encoding_format="hex"), 400, "invalid_request", "'float' or 'base64'"),
    "impossible dimensions": (embed("x", dimensions=5), 400, "invalid_request", "8 or 4"),
    "compressed body": (post(b"\x1f\x8b", Content_Encoding="gzip"), 415, "unsupported_media_type", "gzip"),
    "no body": (post(b""), 400, "invalid_request", "no body"),
    "not JSON": (post(b"input=x"), 400, "invalid_request", "not valid JSON"),
    "deeply nested": (post(b'{"input": ' + b"[" * 300_000), 400, "invalid_request", "nested too deeply"),
    "objects deeply nested": (post(b'{"input":' * 300_000), 400, "invalid_request", "nested too deeply"),
    "nested and whole": (post(b'{"input": ' + b"[" * 9999 + b"]" * 9999 + b"}"), 400, "invalid_request", "too deeply"),
    "10^6 texts": (embed(["x"] * 1_000_000), 413, "input_too_large", "at most"),
    "10^6 - 1 texts": (embed(["x"] * 999_999), 413, "input_too_large", "at most 1000"),
    "10^6 empty lists": (post(b'{"input": [' + b"[]," * 1_000_000 + b"[]]}"), 413, "input_too_large", "1000000 values"),
    "10^6 other fields": (post(many_fields(1_000_000)), 413, "input_too_large", "1000000 values"),
    "10^5 other fields, the last twice": (post(many_fields(100_000, b',"z":1,"z":2')), 400, "invalid_request", "'z' "),
    "a token id of 4000 digits": (post(b'{"input": [' + b"9" * 4000 + b"]}"), 422, "invalid_input", "ids go from 0"),
    "a token id of 5000 digits": (post(b'{"input": [' + b"9" * 5000 + b"]}"), 400, "invalid_request", "digits"),
    "10^4 numbers of 4000 digits": (
        post(b'{"input": [' + b",".join([b"9" * 4000] * 10_000) + b"]}"),
        400,
        "invalid_request",
        "a number of 4000 digits; at most 100 are taken",
    ),
    "a number past every float": (post(b'{"input": [1e999]}'), 422, "invalid_input", "token ids are whole numbers"),
    "a fraction of a million digits": (
        post(b'{"input": [0.' + b"9" * 1_000_000 + b"]}"),
        422,
        "invalid_input",
        "token ids are whole numbers",
    ),
    "dimensions past every integer": (embed("x", dimensions=10**30), 400, "invalid_request", "8 or 4"),
    "partial neither true nor false": (
        lambda served: served.embed("x", headers={"X-Embedfleet-Partial": "maybe"}),
        400,
        "invalid_request",
        "true or false",
    ),
    "unknown route": (lambda served: served.ask("GET", "/v1/embed"), 404, "not_found", "/v1/embed"),
    "wrong method": (lambda served: served.ask("GET", "/v1/embeddings"), 405, "method_not_allowed", "GET"),
}


def test_every_bad_input_has_its_answer() -> None:
    """Each kind of bad input gets its status, code and words, nothing accepted; a good request then still works."""

    async def main() -> None:
        async with serving() as served:
            for name, (ask, status, code, words) in CASES.items():
                reply = await ask(served)
                assert (name, reply.status, reply.error["code"]) == (name, status, code)
                assert words in reply.error["message"], name
                assert reply.error["accepted"] is False, name
            assert (await served.embed("good")).status == 200
            assert served.engine.total_queue_depth == 0

    run(main())


def test_every_bad_index_is_listed_whoever_finds_it() -> None:
    """What the edge finds (empty) and what only the model's vocabulary tells are listed together."""

    async def main() -> None:
        async with serving() as served:
            reply = await served.embed([[1], [], [VOCABULARY], [2], [-1]])
            assert [(e["index"], e["code"]) for e in reply.error["errors"]] == [
                (1, "empty"),
                (2, "token_out_of_range"),
                (4, "token_out_of_range"),
            ]
            assert reply.error["param"] == "input"

    run(main())


def test_wrong_method_names_the_right_one() -> None:
    """405 carries `Allow`, as RFC 9110 asks."""

    async def main() -> None:
        async with serving() as served:
            assert (await served.ask("DELETE", "/v1/embeddings")).headers["Allow"] == "POST"

    run(main())


def test_a_body_past_the_limit_is_refused_declared_or_not() -> None:
    """A body too large is refused by its declared length, and by count where none is declared."""

    async def chunks() -> Any:
        for _ in range(300):
            yield b"x" * 1000

    async def main() -> None:
        async with serving(limits=Limits(body_bytes=100_000)) as served:
            for body in (b"x" * 100_001, chunks()):
                reply = await served.post(body)
                assert (reply.status, reply.error["code"]) == (413, "input_too_large")
                assert "100000 bytes" in reply.error["message"]

    run(main())


async def exchange(served: Served, sent: bytes) -> bytes:
    """What the server says to raw bytes, until it closes the connection."""
    reader, writer = await asyncio.open_connection(served.host, served.port)
    try:
        writer.write(sent)
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


def test_half_a_body_then_silence() -> None:
    """A body that stops coming gets 408 and a connection closed without lingering; the server goes on."""

    async def main() -> None:
        async with serving(limits=Limits(body_silence_seconds=0.01, lingering_seconds=3600)) as served:
            head = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
            said = await exchange(served, head + b'{"input": "ha')
            assert said.startswith(b"HTTP/1.1 408 ")
            assert b"Connection: close" in said
            error = json.loads(said.partition(b"\r\n\r\n")[2])["error"]
            assert (error["code"], error["accepted"]) == ("request_timeout", False)
            assert (await served.embed("good")).status == 200

    run(main())


def test_a_body_shorter_than_it_says() -> None:
    """Its sender waits for an answer to what it takes for whole: 408, and the next connection is served."""

    async def main() -> None:
        async with serving(limits=Limits(body_silence_seconds=0.01)) as served:
            head = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
            assert (await exchange(served, head + b'{"input": "x"}')).startswith(b"HTTP/1.1 408 ")
            assert (await served.embed("good")).status == 200

    run(main())


def test_a_body_longer_than_it_says() -> None:
    """The body ends where its length says; what follows is no request, gets 400, and ends the connection. Where it
    comes in one piece with the request nothing is done for either.
    """

    async def main() -> None:
        async with serving() as served:
            body, more = b'{"input": "x"}', b"and what nobody asked for\r\n\r\n"
            head = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
            reader, writer = await asyncio.open_connection(served.host, served.port)
            writer.write(head + body)
            heard = await hear(reader)
            assert heard is not None
            assert heard.status == 200
            writer.write(more)
            assert b" 400 " in (await reader.read()).partition(b"\r\n")[0]
            writer.close()
            await writer.wait_closed()
            assert b" 400 " in (await exchange(served, head + body + more)).partition(b"\r\n")[0]
            assert served.engine.stats().submitted == 1

    run(main())


def test_a_length_past_the_limit_is_refused_unsent() -> None:
    """However large the number, at once, though not a byte of the body comes."""

    async def main() -> None:
        async with serving(limits=Limits(lingering_seconds=0.01)) as served:
            for length in (64 * 1024 * 1024 + 1, 10**18):
                head = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % length
                assert (await exchange(served, head)).startswith(b"HTTP/1.1 413 ")
            head = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"
            assert (await exchange(served, head)).partition(b" ")[2].startswith(b"400 ")

    run(main())


@pytest.mark.parametrize("sent", [b"", b"e\r\n", b'e\r\n{"input": "x"}\r\n'])
def test_chunks_without_an_end(sent: bytes) -> None:
    """None at all, one begun, or all but the last of length 0: 408 once nothing comes any more."""

    async def main() -> None:
        async with serving(limits=Limits(body_silence_seconds=0.01)) as served:
            head = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            assert (await exchange(served, head + sent)).startswith(b"HTTP/1.1 408 ")
            assert served.engine.stats().submitted == 0
            assert (await served.embed("good")).status == 200

    run(main())


def test_a_client_that_asks_first_sends_no_body_in_vain() -> None:
    """`Expect: 100-continue` with a compressed body is refused at once, without asking for the body."""

    async def main() -> None:
        async with serving(limits=Limits(lingering_seconds=0.01)) as served:
            head = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 100\r\n"
            assert (await exchange(served, head + b"Content-Encoding: gzip\r\n\r\n")).startswith(b"HTTP/1.1 415 ")
            good = await served.session.post(
                f"http://{served.host}:{served.port}/v1/embeddings", data=b'{"input": "x"}', expect100=True
            )
            assert good.status == 200
            good.release()

    run(main())


def test_broken_framing_is_the_clients_fault() -> None:
    """A chunk size that is no number is 400, not 500."""

    async def main() -> None:
        async with serving(limits=Limits(lingering_seconds=0.01)) as served:
            head = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
            assert (await exchange(served, head + b"5\r\nhello\r\nzz\r\n")).partition(b" ")[2].startswith(b"400 ")
            assert (await served.embed("good")).status == 200

    run(main())
