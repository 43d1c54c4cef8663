"""Bad input over a real socket: a clear error of the table, and the server goes on."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from embedfleet_server.config import Limits
from tests.support.fake_model import VOCABULARY
from tests.support.served import Reply, Served, run, serving

pytestmark = pytest.mark.requirement("S1")
Ask = Callable[[Served], Coroutine[Any, Any, Reply]]


def embed(value: Any, **fields: Any) -> Ask:
    return lambda served: served.embed(value, **fields)


def post(body: Any, **headers: str) -> Ask:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda served: served.post(body, headers=named)


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
