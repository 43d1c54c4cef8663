"""A leaving server: serves on while clients find their way elsewhere, then refuses, then ends; real processes."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import orjson
import pytest

from embedfleet.api.pods import Drain
from embedfleet_server.__main__ import lame_duck_of
from embedfleet_server.app.control import AskedDrain, ControlSocket
from embedfleet_server.app.lifecycle import Event, LameDuck
from embedfleet_server.app.signals import StopSignal
from embedfleet_server.app.tuning import Tuning
from tests.support.process import ROOT, Process, process
from tests.support.served import run, serving

pytestmark = pytest.mark.requirement("S4")
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
SHORT = {"propagationSeconds": 3, "quietSeconds": 0, "maxLameDuckSeconds": 3}
GUARDED = """
import runpy, sys
def refuse(event, arguments):
    writes = event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate")
    if writes or (event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")):
        raise SystemExit(f"wrote: {event} {arguments}")
sys.addaudithook(refuse)
sys.argv[1:1] = []
runpy.run_module("embedfleet_server.drain", run_name="__main__")
"""


@contextmanager
def hook(*arguments: str, code: str | None = None) -> Iterator[subprocess.Popen[str]]:
    """`python -m embedfleet_server.drain` in a process of its own, with nothing to write to."""
    command = ["-B", "-c", code] if code is not None else ["-B", "-m", "embedfleet_server.drain"]
    environ = os.environ | {"TMPDIR": "/no/such/directory", "HOME": "/no/such/directory"}
    with subprocess.Popen(
        [sys.executable, *command, *arguments], cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def connect(server: Process) -> HTTPConnection:
    """A connection that has served one request and is kept alive."""
    address = urlsplit(server.record.url)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=60)
    response, _ = embed(connection)
    assert response.headers.get("Connection") is None
    assert connection.sock is not None
    return connection


def embed(connection: HTTPConnection) -> tuple[HTTPResponse, bytes]:
    connection.request("POST", "/v1/embeddings", b'{"input": "text"}')
    response = connection.getresponse()
    return response, response.read()


def until(server: Process, state: str) -> None:
    while server.ask("GET", "/state", observe=True)[1]["lifecycle"] != state:
        pass


@pytest.mark.parametrize("start", ["hook", "signal", "both"])
def test_the_way_out(tmp_path: Path, start: str) -> None:
    """Begun by the hook, by SIGTERM, or both: idle kept-alive connections are served, then refused; every answer says
    `Connection: close`; what was accepted is answered; the hook returns at the end, and there was one drain.
    """
    with process(tmp_path, extra=POD, drain=SHORT) as server, ThreadPoolExecutor() as pool:
        server.line("is ready at")
        early, late = connect(server), connect(server)
        with hook("--runtime", str(server.runtime)) if start != "signal" else nullcontext() as hooked:
            if start != "hook":
                server.running.send_signal(signal.SIGTERM)
            until(server, "LameDuck")
            assert server.ask("GET", "/ready", observe=True)[0].status == 200
            response, _ = embed(early)
            assert (response.status, response.headers["Connection"]) == (200, "close")
            held = pool.submit(server.embed, "HOLD this")
            with server.gate.open("w"):  # opens once the forward waits at the other end
                until(server, "Closing")
                response, said = embed(late)
                assert (response.status, response.headers["Connection"]) == (503, "close")
                error = orjson.loads(said)["error"]
                assert (error["code"], error["accepted"]) == ("shutting_down", False)
                assert hooked is None or hooked.poll() is None
            if hooked is not None:
                assert hooked.wait(60) == 0
        answer, body = held.result()
        assert (answer.status, len(body["data"]), answer.headers["Connection"]) == (200, 1, "close")
        out, err = server.running.communicate(timeout=60)
        assert server.running.returncode == 0, err
        assert out.count("draining:") == 1
        early.close()
        late.close()


def test_the_hook_returns_once_all_is_answered(tmp_path: Path) -> None:
    """Exit status 0 after the last answer; in a process that may write nowhere."""
    with process(tmp_path) as server, ThreadPoolExecutor() as pool:
        server.line("is ready at")
        held = pool.submit(server.embed, "HOLD this")
        with hook("--socket", str(server.runtime / "fleet.sock"), code=GUARDED) as hooked:
            with server.gate.open("w"):  # opens once the forward waits at the other end
                until(server, "Closing")
                assert hooked.poll() is None
            _, said = hooked.communicate(timeout=60)
            assert (hooked.returncode, said) == (0, "")
        assert held.result()[0].status == 200
        assert server.running.wait(60) == 0


def test_who_asks_for_a_drain_is_answered_at_its_end(tmp_path: Path) -> None:
    """The stop is begun at once, by whoever asks first; each answer comes when everything accepted is answered."""

    async def main() -> None:
        async with serving() as served:
            stop = StopSignal()
            tuning = Tuning(served.engine, tmp_path)
            drain = AskedDrain(stop)
            control = ControlSocket(served.engine, tuning, tmp_path / "s.sock", drain)
            await control.start()
            connector = aiohttp.UnixConnector(str(tmp_path / "s.sock"))
            async with aiohttp.ClientSession("http://local", connector=connector) as session:
                asked = [asyncio.create_task(session.post("/drain")) for _ in range(2)]
                await stop.wait()
                for _ in range(3):
                    assert (await session.get("/stats")).status == 200
                assert not any(task.done() for task in asked)
                drain.ended()
                assert [answer.status for answer in await asyncio.gather(*asked)] == [200, 200]
            await control.stop()

    run(main())


def test_the_hook_imports_next_to_nothing() -> None:
    """Neither what a server needs nor asyncio, pydantic or the contract: nothing that takes long to import."""
    code = "import sys; before = set(sys.modules); import embedfleet_server.drain; print(*set(sys.modules) - before)"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert {name.partition(".")[0] for name in out} - sys.stdlib_module_names == {"embedfleet_server"}
    assert not {"argparse", "asyncio", "email", "http", "logging", "ssl", "subprocess"} & set(out)


def test_the_hook_says_what_is_wrong(tmp_path: Path) -> None:
    """No socket, several, nobody behind one, wrong words: each has its sentence and exit status."""
    (tmp_path / "empty").mkdir()
    for name in ("a.sock", "b.sock"):
        (tmp_path / name).touch()
    cases = [
        (("--runtime", str(tmp_path / "none")), 1, "cannot be listed"),
        (("--runtime", str(tmp_path / "empty")), 1, "holds 0 control sockets (none)"),
        (("--runtime", str(tmp_path)), 1, "holds 2 control sockets (a.sock, b.sock)"),
        (("--socket", str(tmp_path / "a.sock")), 1, "no server answers at"),
        (("--sockets", "x"), 2, "usage:"),
        (("--socket",), 2, "usage:"),
    ]
    for arguments, status, words in cases:
        with hook(*arguments) as hooked:
            _, said = hooked.communicate(timeout=60)
            assert (hooked.returncode, words in said) == (status, True), said


def test_every_answer_of_a_lame_duck_says_close() -> None:
    """Good answers, errors of every kind and broken HTTP alike."""

    async def main() -> None:
        async with serving() as served:
            assert "Connection" not in (await served.ask("GET", "/v1/models")).headers
            served.server.lifecycle.on(Event.STOP)
            for method, path in (("GET", "/v1/models"), ("GET", "/nope"), ("DELETE", "/embed"), ("GET", "/health")):
                assert (await served.ask(method, path)).headers["Connection"] == "close"
            for text in ("x", "", "BREAK"):
                assert (await served.embed(text)).headers["Connection"] == "close"
            served.server.lifecycle.on(Event.ALONE)
            reply = await served.embed("x")
            assert (reply.status, reply.headers["Connection"]) == (503, "close")
            await served.server.drain(10)

    run(main())


def test_probes_do_not_keep_it_serving() -> None:
    """A load balancer that asks `/health` is no client: it does not put the end of the lame duck off."""

    async def main() -> None:
        async with serving() as served:
            await served.ask("GET", "/health")
            assert served.server.lifecycle.last_request is None
            await served.embed("x")
            assert served.server.lifecycle.last_request is not None

    run(main())


def test_only_a_pod_has_a_lame_duck() -> None:
    """On a laptop nobody routes by endpoints, so the end comes at once; in a pod the manifest's numbers hold."""
    drain = Drain(propagation_seconds=1, quiet_seconds=2, max_lame_duck_seconds=3)
    assert lame_duck_of(drain, in_pod=False) == LameDuck()
    assert lame_duck_of(drain, in_pod=True) == LameDuck(propagation=1, quiet=2, most=3)
