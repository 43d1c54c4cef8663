"""Answers that their client does not read, over real sockets: given up in time, and others served meanwhile."""

import asyncio
import contextlib
import io
import json
import socket
from collections.abc import Sequence

import numpy as np
import pytest
from aiohttp.web_protocol import RequestHandler

from embedfleet_server.app.unread import Unsent, is_given_up
from embedfleet_server.config import Limits
from embedfleet_server.engine.protocols import Encoded, Rows
from tests.support.fake_model import FakeModel
from tests.support.raw import post
from tests.support.served import Served, run, serving

pytestmark = pytest.mark.requirement("S1")


def test_an_answer_that_nobody_reads_is_given_up() -> None:
    """A client that takes too little within the time is cut off; one that takes enough is not."""
    limits = Limits(answer_silence_seconds=30, answer_bytes_per_second=1000)
    before = Unsent(1_000_000, 0.0)
    assert is_given_up(before, Unsent(1_000_000, 30.0), limits)
    assert is_given_up(before, Unsent(970_001, 30.0), limits)
    assert not is_given_up(before, Unsent(970_000, 30.0), limits)


WIDE = 4096
MANY = 1000
PIECE = 1 << 18


def wide() -> FakeModel:
    """A model whose answers are far larger than what the kernel keeps for a reader."""

    class Wide(FakeModel):
        def forward(self, batch: Sequence[Encoded]) -> Rows:
            return np.full((len(batch), WIDE), WIDE**-0.5, np.float32)

    return Wide(dimensions=WIDE, native_dimensions=WIDE, matryoshka=())


async def connected(served: Served) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection with little room for what comes, so that the server has to keep it."""
    own = socket.socket()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    own.setblocking(False)
    await asyncio.get_running_loop().sock_connect(own, (served.host, served.port))
    return await asyncio.open_connection(sock=own, limit=4096)


def connections(served: Served) -> list[RequestHandler]:
    """Those that the public port has open."""
    server = served.server._public.server
    assert server is not None
    return server.connections


def asking(count: int) -> bytes:
    """For so many vectors of 16 KiB."""
    return post(json.dumps({"input": ["x"] * count}).encode(), "Accept: application/x-npy")


async def rest(reader: asyncio.StreamReader) -> bytes:
    """What still comes of an answer, to the end of the connection however that comes."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(1 << 20):
            found += piece
    return found


LARGE = asking(MANY)


def test_a_client_that_does_not_read_is_cut_off() -> None:
    """Its answer lies in the server's memory until then; others are served meanwhile."""

    async def main() -> None:
        async with serving(
            {"semantic": wide}, limits=Limits(answer_silence_seconds=0.1), max_queued_requests=8 * MANY
        ) as served:
            before = len(connections(served))
            streams = [await connected(served) for _ in range(4)]
            for _, writer in streams:
                writer.write(LARGE)
            await served.until(lambda: len(connections(served)) > before)
            assert (await served.embed("good")).status == 200
            await served.until(lambda: len(connections(served)) <= before + 1)
            for reader, writer in streams:
                assert len(await rest(reader)) < MANY * WIDE * 4
                writer.close()

    run(main())


def test_what_is_left_of_an_answer_does_not_keep_a_connection() -> None:
    """A little of it, for which no writer waits, is not read: the connection is idle, is closed, and then is gone."""
    limits = Limits(keepalive_seconds=0.1, answer_silence_seconds=0.1)

    async def main() -> None:
        async with serving({"semantic": wide}, limits=limits) as served:
            reader, writer = await connected(served)
            await served.until(lambda: len(connections(served)) == 1)
            (own,) = connections(served)
            assert own.transport is not None
            own.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            writer.write(asking(3))
            await served.until(lambda: not connections(served))
            assert len(await rest(reader)) < 3 * WIDE * 4
            writer.close()

    run(main())


def test_a_client_that_reads_is_not_cut_off() -> None:
    """However long its answer takes, as long as it takes some: here a piece each time the server looks."""

    async def main() -> None:
        limits = Limits(answer_silence_seconds=0.05, answer_bytes_per_second=1)
        async with serving({"semantic": wide}, limits=limits) as served:
            reader, writer = await asyncio.open_connection(served.host, served.port, limit=PIECE)
            writer.write(LARGE)
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in head
            body = b""
            while len(body) < MANY * WIDE * 4:
                body += await reader.read(PIECE)
                await served.observe("/live")
            rows = np.load(io.BytesIO(body))
            assert rows.shape == (MANY, WIDE)
            writer.close()
            await writer.wait_closed()

    run(main())
