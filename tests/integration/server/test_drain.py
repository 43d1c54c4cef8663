"""The real process: signals, the drain, the exit; and what a client sees of them."""

import asyncio
import signal
import socket
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import process
from tests.support.served import run, serving

pytestmark = pytest.mark.requirement("S4")


@pytest.mark.requirement("B13", "B14")
def test_sigterm_finishes_what_was_accepted(tmp_path: Path) -> None:
    """Accepted work is answered, later requests get 503, not accepted; a second signal changes nothing; exit 0."""
    with process(tmp_path) as server, ThreadPoolExecutor() as pool:
        server.line("is ready at")
        held: Future[tuple[HTTPResponse, Any]] = pool.submit(server.embed, "HOLD this")
        with server.gate.open("w"):  # opens once the forward waits at the other end
            server.running.send_signal(signal.SIGTERM)
            server.until_closing()
            response, body = server.embed("too late")
            assert (response.status, body["error"]["code"], body["error"]["accepted"]) == (503, "shutting_down", False)
            assert response.headers["Connection"] == "close"
            assert int(response.headers["Retry-After"]) >= 1
            server.running.send_signal(signal.SIGTERM)
            server.running.send_signal(signal.SIGINT)
            assert server.embed("still too late")[0].status == 503
        response, body = held.result()
        assert (response.status, len(body["data"])) == (200, 1)
        assert response.headers["Connection"] == "close"
        out, err = server.running.communicate(timeout=60)
        assert server.running.returncode == 0
        assert "finished 1 request (1 text), refused 2" in out
        assert "Traceback" not in err
        assert not list(server.runtime.glob("*.json"))


def test_the_banner_says_what_runs(tmp_path: Path) -> None:
    """Service, address and each model's figures are printed, then the time to ready; Ctrl-C says what was finished."""
    with process(tmp_path) as server:
        assert "service fleet listens on http://127.0.0.1:" in server.line("listens on")
        heads, cells = server.line("fingerprint").split("  "), server.line("semantic").split()
        assert "max tokens" in [head.strip() for head in heads]
        assert cells == ["semantic", "Dense", "8", "16", "float32", "cpu", "ffffffffffff"]
        assert server.record.url in server.line("is ready at")
        assert (server.record.service, server.record.models, server.record.pid) == (
            "fleet",
            ["semantic"],
            server.running.pid,
        )
        assert "drained: finished 0 requests (0 texts), refused 0" in server.stop()


def test_a_signal_while_a_model_loads(tmp_path: Path) -> None:
    """A load cannot be interrupted, and does not keep the process: it exits 0 while the load still hangs."""
    with process(tmp_path, models=[{"name": "stuck", "source": {"path": "unused"}}]) as server:
        server.line("listens on")
        with server.gate.open("w"):  # opens once the load waits at the other end
            server.running.send_signal(signal.SIGTERM)
            server.running.communicate(timeout=60)
    assert server.running.returncode == 0


@pytest.mark.parametrize("option", ["--port", "--observe-port"])
def test_a_port_in_use(tmp_path: Path, option: str) -> None:
    """The error names the port and what to do; exit status 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with process(tmp_path, option, str(port), *(["--observe-port", "0"] if option == "--port" else [])) as server:
            out, err = server.running.communicate(timeout=60)
    assert server.running.returncode == 1
    assert f"error: port {port} on 127.0.0.1 is in use" in err
    assert f"{option} 0" in err
    assert not out


def test_keep_alive_clients_are_told_to_leave() -> None:
    """On a connection kept alive, answers that go out during the drain say `Connection: close`; earlier ones do not."""

    async def main() -> None:
        async with serving() as served:
            before = await served.embed("good")
            held = asyncio.create_task(served.embed("HOLD"))
            await served.until(served.gate.reached.is_set)
            draining = asyncio.create_task(served.server.drain(10))
            await served.until(lambda: served.server.lifecycle.is_closing)
            refused = await served.embed("late")
            served.gate.opened.set()
            replies = [before, refused, await held]
            assert [reply.status for reply in replies] == [200, 503, 200]
            assert [reply.headers.get("Connection") for reply in replies] == [None, "close", "close"]
            farewell = await draining
            assert str(farewell) == "finished 1 request (1 text), refused 1"

    run(main())


def test_past_the_limit_the_rest_get_an_error() -> None:
    """When the time to drain is up, what is unanswered gets a clear error, accepted; nothing hangs."""

    async def main() -> None:
        async with serving() as served:
            held = asyncio.create_task(served.embed("HOLD"))
            await served.until(served.gate.reached.is_set)
            farewell = await served.server.drain(0.01)
            reply = await held
            assert (reply.status, reply.error["accepted"]) == (500, True)
            assert "drain" in reply.error["message"]
            assert "cut off 1" in str(farewell)

    run(main())
