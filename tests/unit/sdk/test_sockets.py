"""Connections that notice a dead peer, with the kernel's own TCP."""

import asyncio
import select
import socket
from collections.abc import Iterator
from contextlib import closing

import aiohttp
import pytest
from yarl import URL

from embedfleet.kube.config import Context, Server, User
from embedfleet.kube.credentials import Credentials
from embedfleet.sockets import IDLE_SECONDS, WATCH, Watch, why
from embedfleet.transport import MARGIN_SECONDS
from embedfleet.way import Direct
from tests.support.dead_peers import fall_silent

QUICK = Watch(quiet=1, between=1, dead=1.0)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server's socket."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def connected(listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    """Ours, which goes by `QUICK`, and the peer's."""
    ours = QUICK.made((socket.AF_INET, socket.SOCK_STREAM, 0, "", listener.getsockname()))
    ours.settimeout(30)
    ours.connect(listener.getsockname())
    return ours, listener.accept()[0]


@pytest.mark.requirement("K3")
@pytest.mark.parametrize("when", ["before the request", "after the request"])
def test_a_dead_peer_is_noticed_and_a_slow_one_is_not(listener: socket.socket, when: str) -> None:
    """Whether it still took the request or not, a peer that died is given up; one that takes its time is not."""
    ours, dead = connected(listener)
    also_ours, slow = connected(listener)  # nobody reads there, and its kernel answers all the same
    with closing(ours), closing(dead), closing(also_ours), closing(slow):
        also_ours.sendall(b"a request")
        if when == "before the request":
            fall_silent(dead)
        ours.sendall(b"a request")
        if when == "after the request":
            assert select.select([dead], [], [], 30)[0]
            fall_silent(dead)
        with pytest.raises(TimeoutError, match="timed out") as caught:
            ours.recv(1)
        assert caught.value.errno is not None  # the kernel's word, not the limit of this test
        assert select.select([also_ours], [], [], 0) == ([], [], [])
        slow.sendall(b"an answer")
        assert also_ours.recv(100) == b"an answer"


@pytest.mark.requirement("K3")
def test_what_every_connection_asks_of_the_kernel(listener: socket.socket) -> None:
    """Probes after 10 s without a word, each 5 s, and an end after 30 s, to a server and to an API server alike."""
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    ways = (Direct(url), Credentials(Context("here", Server(url), User())))
    for way in ways:
        asked = asyncio.run(_asked(way, url))
        assert asked == {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 30_000}


async def _asked(way: Direct | Credentials, url: str) -> dict[str, int]:
    """The options of the socket of a connection that `way` makes."""
    where = aiohttp.ClientRequest("GET", URL(url), loop=asyncio.get_running_loop())
    async with way.connector() as connector:
        connection = await connector.connect(where, [], aiohttp.ClientTimeout())
        assert connection.transport is not None
        made = connection.transport.get_extra_info("socket")
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
        told = {name: made.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names}
        connection.close()
    return told


def test_a_system_that_lacks_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere than on Linux what there is not is left out, and the rest is asked for."""
    for name in ("TCP_USER_TIMEOUT", "TCP_KEEPIDLE", "TCP_KEEPINTVL"):
        monkeypatch.delattr(socket, name)
    with closing(WATCH.made((socket.AF_INET, socket.SOCK_STREAM, 0, "", None))) as made:
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 4


def test_idle_connections_are_gone_when_a_silence_ends() -> None:
    """The margin is not less than the age at which what is idle is closed: the next attempt meets no older one."""
    assert MARGIN_SECONDS >= IDLE_SECONDS


def test_a_refused_connection_is_told_in_the_systems_words() -> None:
    """Not in those of the HTTP library, which speak of TLS where there is none."""

    async def main() -> str:
        with closing(socket.create_server(("127.0.0.1", 0))) as gone:
            port = gone.getsockname()[1]
        async with aiohttp.ClientSession() as session:
            try:
                await session.get(f"http://127.0.0.1:{port}/")
            except aiohttp.ClientConnectorError as error:
                return why(error)
        return "connected"

    assert asyncio.run(main()) == "Connection refused"
    assert why(ValueError("words")) == "words"
    assert why(TimeoutError()) == "TimeoutError"
