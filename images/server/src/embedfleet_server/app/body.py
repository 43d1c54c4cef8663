"""Reading a request's body: bounded in size and in silence, never compressed."""

import asyncio

from aiohttp import HttpVersion11, web

from embedfleet_server.app.errors import BodyTimeout, CompressedBody
from embedfleet_server.config import Limits
from embedfleet_server.engine.errors import InvalidRequest, TooLarge

_CODINGS = {"Content-Encoding": "identity", "Transfer-Encoding": "chunked"}
"""The headers that tell how a body was coded, and what each may say: that it was not."""


async def read(request: web.Request, limits: Limits) -> bytes:
    """The whole body; raises `CompressedBody`, `TooLarge`, `BodyTimeout`, or `InvalidRequest` when there is none."""
    _check_headers(request, limits)
    await _continue(request)
    chunks: list[bytes] = []
    size, loop = 0, asyncio.get_running_loop()
    began = loop.time()
    while chunk := await _chunk(request, patience(size, loop.time() - began, limits)):
        chunks.append(chunk)
        size += len(chunk)
        if size > limits.body_bytes:
            raise _too_large(limits)
    if not size:
        raise InvalidRequest("the request has no body")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def patience(size: int, elapsed: float, limits: Limits) -> float:
    """Seconds to wait for more of a body of which `size` bytes came within `elapsed` seconds."""
    earned = limits.body_silence_seconds + size / limits.body_bytes_per_second
    return max(0.0, min(limits.body_silence_seconds, earned - elapsed))


async def ignore_expect(_: web.Request) -> None:
    """Takes the place of aiohttp's handler of `Expect`, which would ask for a body before any check of the headers."""


def _check_headers(request: web.Request, limits: Limits) -> None:
    for name, plain in _CODINGS.items():
        coding = ", ".join(request.headers.getall(name, ())).strip().lower()
        if coding not in ("", plain):
            raise CompressedBody(f"{name} {coding[:40]!r} is not taken; send the body as it is")
    if request.content_length is not None and request.content_length > limits.body_bytes:
        raise _too_large(limits)


async def _continue(request: web.Request) -> None:
    asked = request.headers.get("Expect", "").lower() == "100-continue"
    if asked and request.version >= HttpVersion11:  # an older client would take it for the answer
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer's own size starts here


async def _chunk(request: web.Request, silence: float) -> bytes:
    """What has come; b"" at the end of the body."""
    try:
        async with asyncio.timeout(silence):
            return await request.content.readany()
    except TimeoutError as error:
        request.content.feed_eof()  # nothing more will come, so aiohttp need not linger for it
        raise BodyTimeout(
            f"the body stopped coming, or came too slowly: nothing more within {silence:.3g} s"
        ) from error
    except web.RequestPayloadError as error:
        raise InvalidRequest("the body does not follow HTTP's framing") from error


def _too_large(limits: Limits) -> TooLarge:
    return TooLarge(f"the body is larger than {limits.body_bytes} bytes; send fewer inputs per request")
