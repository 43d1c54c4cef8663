"""The end of the public port: who has got a connection is answered; nobody is left in doubt."""

import asyncio
import signal
import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from embedfleet_server.app.parting import dropped, rest, stop_handshakes
from embedfleet_server.app.tls import Tls
from embedfleet_server.config import Limits
from tests.support.certificates import pair, write
from tests.support.ledger import Outcome, read, summary, troubles
from tests.support.process import process
from tests.support.rollover import passed
from tests.support.served import Served, run, serving
from tests.support.steady import AWAY, Load
from tests.support.wire_client import Heard, hear, request

pytestmark = pytest.mark.requirement("S4", "O3")
CLIENTS = 40
CROWD = 200
"""So many that without the filter of `stop_handshakes` 13 to 55 of them were in doubt in each of ten runs."""
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
LOST = Heard(0, True, b"{}")
"""No answer."""
PATIENT = Limits(parting_seconds=30.0)
"""What is waited for comes at once, unless the machine stands still."""
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
LONGER = {"FAKE_LIMITS": '{"parting_seconds": 30}'}
BRIEF = {"propagationSeconds": 0, "quietSeconds": 0, "maxLameDuckSeconds": 0}


def leave(*streams: Streams) -> None:
    for _, writer in streams:
        writer.close()


async def listener_closed(served: Served) -> None:
    """Returns once nobody can connect any more."""
    await served.until(lambda: not served.server.bound()[0])


@pytest.mark.parametrize("is_old", [False, True], ids=["new", "with half a head"])
def test_who_is_connected_is_answered(is_old: bool) -> None:
    """Clients with a connection when the listener closes, new or with the next request's head begun, send the request,
    or the rest of it, only then: each is refused with `accepted: false`, none is cut off.
    """

    async def main() -> None:
        async with serving(limits=PATIENT) as served:
            streams = [await asyncio.open_connection(served.host, served.port) for _ in range(CLIENTS)]
            text = request("late", "text")
            for reader, writer in streams if is_old else []:
                writer.write(request("early", "text"))
                assert (await hear(reader) or LOST).status == 200
                writer.write(text[:30])
            draining = asyncio.create_task(served.server.drain(10))
            await listener_closed(served)
            for _, writer in streams:
                writer.write(text[30 * is_old :])
            answers = [await hear(reader) or LOST for reader, _ in streams]
            assert [(one.status, one.accepted, one.closes) for one in answers] == [(503, False, True)] * CLIENTS
            assert (await draining).refused == CLIENTS
            leave(*streams)

    run(main())


def test_a_handshake_of_tls_under_way_is_waited_for(tmp_path: Path) -> None:
    """A client that has connected, and begins its TLS handshake after the listener closed: refused like the others."""
    certificate, key = pair("x")
    tls = Tls(write(tmp_path, certificate, key))

    async def main() -> None:
        async with serving(tls=tls, limits=PATIENT) as served:
            reader, writer = await asyncio.open_connection(served.host, served.port)
            draining = asyncio.create_task(served.server.drain(10))
            await listener_closed(served)
            await writer.start_tls(ssl.create_default_context(cadata=certificate.decode()), server_hostname=served.host)
            writer.write(request("late", "text"))
            answer = await hear(reader) or LOST
            assert (answer.status, answer.accepted) == (503, False)
            assert (await draining).refused == 1
            leave((reader, writer))

    run(main())


def test_who_says_nothing_is_not_waited_for() -> None:
    """A connection without a request, and half a head whose rest never comes, keep the server for its time at most;
    one that is idle between requests does not at all.
    """

    async def main() -> None:
        async with serving(limits=Limits(parting_seconds=0.05)) as served:
            streams = [await asyncio.open_connection(served.host, served.port) for _ in range(2)]
            streams[0][1].write(b"POST /v1/emb")
            assert (await served.embed("kept alive")).status == 200
            assert (await served.server.drain(10)).refused == 0
            assert [await reader.read() for reader, _ in streams] == [b"", b""]
            leave(*streams)

    run(main())


def test_nobody_is_waited_for_in_vain() -> None:
    """A client that was answered before and is silent now, and one that came and went without a word: the end does not
    wait for the hour it might.
    """

    async def main() -> None:
        async with serving(limits=Limits(parting_seconds=3600.0, keepalive_seconds=3600.0)) as served:
            idle, gone = [await asyncio.open_connection(served.host, served.port) for _ in range(2)]
            leave(gone)
            idle[1].write(request("early", "text"))
            assert (await hear(idle[0]) or LOST).status == 200
            await served.server.drain(10)
            assert await idle[0].read() == b""
            leave(idle)

    run(main())


def test_a_listener_that_takes_no_handshake_keeps_what_it_has() -> None:
    """A connection that the kernel has taken is accepted and read from; a new one finds no answer, and no refusal."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        with socket.create_connection(address) as early, socket.socket() as late:
            stop_handshakes(listener)
            late.setblocking(False)
            assert dropped(listener) == 0
            late.connect_ex(address)
            with pytest.raises(OSError, match="not connected"):  # on loopback a handshake ends within connect
                late.getpeername()
            assert dropped(listener) == 1
            early.sendall(b"as before")
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.recv(64) == b"as before"
                accepted.sendall(b"and back")
                assert early.recv(64) == b"and back"


def test_who_knocked_in_vain_finds_somebody_to_refuse_it() -> None:
    """The process stays until the second knock; without a first one it does not."""
    assert rest(True, began=10.0, now=10.2) == pytest.approx(1.0)
    assert rest(True, began=10.0, now=12.0) == 0.0
    assert rest(False, began=10.0, now=10.2) == 0.0


def test_a_system_without_filters_is_no_obstacle() -> None:
    """Where the kernel takes no filter, and tells nothing, the listener stays as it is."""
    with socket.socket(socket.AF_UNIX) as other:
        other.close()
        stop_handshakes(other)
        assert dropped(other) == 0


def test_the_last_of_its_service_leaves_nobody_in_doubt(tmp_path: Path) -> None:
    """Clients that connect anew for each request, and know no other server, to its very end: each request is answered,
    refused, or never sent, and the server's journal says the same.
    """

    async def main() -> Load:
        with process(tmp_path, "--journal", str(tmp_path / "journal"), extra=POD | LONGER, drain=BRIEF) as server:
            await asyncio.to_thread(server.line, "is ready at")
            load = Load("127.0.0.1", urlsplit(server.record.url).port or 0, "last", period=0.0, lasting=False)
            clients = [asyncio.create_task(load.client()) for _ in range(CROWD)]
            await passed(load.seen, 3 * CROWD)
            server.running.send_signal(signal.SIGTERM)
            await asyncio.to_thread(server.running.wait, 60)
            await passed(load.seen, CROWD)
            load.going = False
            await asyncio.gather(*clients)
        return load

    load = asyncio.run(main())
    seen = {number: Outcome(outcome) for number, outcome in load.seen.items() if f"-{AWAY}-" not in number}
    assert troubles(seen, read([tmp_path / "journal"])) == [], summary(seen)
    assert len(seen) > 3 * CROWD
