"""A thousand connections that send a byte at a time, at a real server process: others are served meanwhile."""

import asyncio
import json
import resource
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.leaks import held
from tests.support.process import process
from tests.support.wire_client import hear, request

pytestmark = pytest.mark.requirement("S1")
_CONNECTIONS = 1000
_SPARE = 200  # descriptors beside the connections, of the test and of the server
_HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: slow\r\nX-Slow: "
_BODY = b"POST /v1/embeddings HTTP/1.1\r\nHost: slow\r\nContent-Length: 1000000\r\n\r\n"
_CHUNKS = b"POST /v1/embeddings HTTP/1.1\r\nHost: slow\r\nTransfer-Encoding: chunked\r\n\r\n"
_LIMITS = {"head_seconds": 3.0, "body_silence_seconds": 3.0, "body_bytes_per_second": 16384}


class Slow:
    """One connection that drips: a head that does not end, a body far from its end, or chunks of a byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: int) -> None:
        self._writer = writer
        self._drop = (b"x", b" ", b"1\r\n \r\n")[kind]
        writer.write((_HEAD, _BODY, _CHUNKS)[kind])
        self.end = asyncio.create_task(self._read(reader))

    def drip(self) -> None:
        """One byte more (of a body), unless the server has ended it."""
        if not self.end.done():
            self._writer.write(self._drop)

    async def _read(self, reader: asyncio.StreamReader) -> str:
        """How it ended: without an answer, or with a status."""
        try:
            said = await reader.read()
        except ConnectionError:
            return "reset"
        finally:
            self._writer.close()
        return said.split(b" ", 2)[1].decode() if said else "closed"


def _raise_limit(wanted: int) -> tuple[int, int]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"hardware: this system lets a process open {hard} files (ulimit -Hn); the test needs {wanted}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    return soft, hard


async def _attack(port: int, observe_port: int) -> tuple[Counter[str], list[int], int]:
    """How the slow ones ended, the statuses that others got meanwhile, and the most slow ones open at one of them."""
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(_CONNECTIONS)]
    slow = [Slow(*streams, kind=number % 3) for number, streams in enumerate(opened)]
    others, most = list[int](), 0
    while dripping := [one for one in slow if not one.end.done()]:
        for one in dripping:
            one.drip()
        others.append(await _asked(port, request(f"other-{len(others)}", "a text")))
        others.append(await _asked(observe_port, b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n"))
        most = max(most, sum(not one.end.done() for one in slow))
    return Counter([await one.end for one in slow]), others, most


async def _asked(port: int, sent: bytes) -> int:
    """The status of one request on a new connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    heard = await hear(reader)
    writer.close()
    await writer.wait_closed()
    return 0 if heard is None else heard.status


def test_a_thousand_drippers_leave_others_served(tmp_path: Path) -> None:
    """While they drip, every request and probe of others on new connections is answered. Each dripper is cut off: a
    head that does not come is closed, a body answered 408. Then the server holds as many descriptors as before.
    """
    limits = _raise_limit(_CONNECTIONS + _SPARE)
    try:
        with process(tmp_path, extra={"FAKE_LIMITS": json.dumps(_LIMITS)}) as server:
            server.line("is ready at")
            server.embed("the first")
            before = held(server)
            ports = [urlsplit(url).port or 0 for url in (server.record.url, server.record.observe_url)]
            ends, others, most = asyncio.run(asyncio.wait_for(_attack(*ports), 120))
            while held(server).files > before.files + 1:  # the last ones are closed one after the other
                pass
            server.stop()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert most == _CONNECTIONS
    assert set(others) == {200}
    assert sum(ends.values()) == _CONNECTIONS
    heads = len(range(0, _CONNECTIONS, 3))
    assert ends["closed"] + ends["reset"] >= heads
    assert ends["408"] >= (_CONNECTIONS - heads) // 2, ends
    assert set(ends) <= {"closed", "reset", "408"}
