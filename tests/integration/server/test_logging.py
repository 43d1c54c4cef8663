"""The log of a real server process: nobody waits for it, and what is nobody's business is not in it."""

import asyncio
import contextlib
import json
import re
import signal
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.process import Process, process
from tests.support.wire_client import hear, request

_CLIENTS, _EACH = 8, 500
_KEY, _TEXT = "k3y-of-team-a", "a text that is nobody's business"
_ROUTES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/embeddings", {"input": [_TEXT, "BREAK"]}),
    ("/v1/embeddings", {"input": [_TEXT, ""]}),
    ("/v1/embeddings", {"input": [_TEXT, 7]}),
    ("/v1/embeddings", {"input": _TEXT, "model": "nope"}),
    ("/v1/embeddings", {"input": _TEXT, _TEXT: 1}),
    ("/embed", {"inputs": f"{_TEXT} NOTFINITE"}),
    ("/embed", {"inputs": [_TEXT], "truncate": _TEXT}),
    ("/similarity", {"inputs": {"source_sentence": _TEXT, "sentences": [_TEXT]}}),
    ("/tokenize", {"inputs": _TEXT}),
    ("/rerank", {"query": _TEXT, "texts": [_TEXT]}),
    ("/v1/rerank", {"query": _TEXT, "documents": [_TEXT]}),
    (f"/no/such/route?key={_KEY}&text={_TEXT.replace(' ', '+')}", {}),
]


async def _failing(port: int, number: int) -> int:
    """Requests that fail in the forward, and then for the model fails, on one connection; how many were answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    failed = 0
    for turn in range(_EACH):
        writer.write(request(f"failing-{number}-{turn}", "BREAK"))
        heard = await hear(reader)
        failed += heard is not None and heard.status in (500, 503)
    writer.close()
    await writer.wait_closed()
    return failed


def _fail(server: Process) -> int:
    port = urlsplit(server.record.url).port or 0

    async def all_clients() -> int:
        return sum(await asyncio.gather(*(_failing(port, number) for number in range(_CLIENTS))))

    return asyncio.run(asyncio.wait_for(all_clients(), 120))  # a server that waits for its log answers never


@pytest.mark.requirement("H1", "B13")
def test_a_stderr_that_nobody_reads_stops_no_request(tmp_path: Path) -> None:
    """Thousands of failing requests at debug level, each with a line, while the pipe of stderr is full: all are
    answered, and probes too. Who reads the pipe then finds whole lines and how many were left out.
    """
    with process(tmp_path, "--log-level", "debug") as server:
        server.line("is ready at")
        assert _fail(server) == _CLIENTS * _EACH
        assert server.ask("GET", "/live", observe=True)[0].status == 200
        server.running.send_signal(signal.SIGINT)
        _, err = server.running.communicate(timeout=60)
        assert server.running.returncode == 0
    lines = err.splitlines()
    asked = [json.loads(line.partition(" request ")[2]) for line in lines if " request {" in line]
    missing = sum(int(found) for found in re.findall(r"log lines left_out=(\d+)", err))
    assert missing > 0
    assert {line["code"] for line in asked} <= {"internal", "model_failing"}
    assert _CLIENTS * _EACH / 20 < len(asked) < _CLIENTS * _EACH  # as much as the pipe and the queue hold
    assert "Traceback" not in err
    assert all(re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z [A-Z]+ \S+ ", line) for line in lines)


@pytest.mark.requirement("H1")
def test_a_stderr_that_nobody_reads_holds_up_no_end(tmp_path: Path) -> None:
    """A server whose log has nowhere to go drains and exits all the same."""
    with process(tmp_path, "--log-level", "debug") as server:
        server.line("is ready at")
        assert _fail(server) == _CLIENTS * _EACH
        server.running.send_signal(signal.SIGTERM)
        assert server.running.wait(60) == 0


@pytest.mark.requirement("S6")
def test_neither_keys_nor_texts_are_logged(tmp_path: Path) -> None:
    """Good and bad requests on every kind of route, with good and bad keys, at debug level: a line for each, and
    neither the text nor a key in any line, nor in the journal.
    """
    keys, journal = tmp_path / "keys", tmp_path / "journal"
    keys.mkdir()
    (keys / "team-a").write_text(_KEY)
    models = [{"name": name, "source": {"path": "unused"}} for name in ("semantic", "rerank")]
    options = ["--api-keys", str(keys), "--journal", str(journal), "--log-level", "debug"]
    with process(tmp_path, *options, models=models) as server:
        server.line("is ready at")
        given = [{"X-API-Key": _KEY}, {"Authorization": f"Bearer {_KEY}"}, {"X-API-Key": f"{_KEY}-wrong"}, {}]
        statuses = {
            server.ask("POST", path, {"model": "semantic", **body} if "input" in body else body, headers=headers)[
                0
            ].status
            for path, body in _ROUTES
            for headers in given
        }
        server.running.send_signal(signal.SIGINT)
        out, err = server.running.communicate(timeout=60)
    assert {200, 400, 401, 404, 422, 500} <= statuses
    assert sum(" request {" in line for line in err.splitlines()) == len(_ROUTES) * len(given)
    assert '"tenant": "team-a"' in err
    for told in (out, err, journal.read_text()):
        assert _KEY not in told
        assert "nobody" not in told


@pytest.mark.requirement("H1")
def test_changes_of_state_are_told_at_info(tmp_path: Path) -> None:
    """From listening to the end, each change once; requests leave no line."""
    with process(tmp_path, "--log-level", "info") as server:
        server.line("is ready at")
        server.embed("x")
        server.running.send_signal(signal.SIGINT)
        _, err = server.running.communicate(timeout=60)
    messages = [line.split(" ", 3)[3] for line in err.splitlines()]
    starts = [
        "listening url=",
        "model semantic was measured ",
        "model semantic is ready ",
        "ready service=fleet",
        "state=LameDuck",
        "state=Closing",
        "drain",
        "drain",
    ]
    assert len(messages) == len(starts), messages
    assert all(message.startswith(start) for message, start in zip(messages, starts, strict=True)), messages


@pytest.mark.requirement("H1", "S6")
@pytest.mark.parametrize(
    ("host", "bound", "dialled"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "0.0.0.0", "127.0.0.1"),
        ("::1", "[::1]", "[::1]"),
        ("::", "[::]", "[::1]"),
    ],
)
def test_the_address_told_is_the_one_listened_on(host: str, bound: str, dialled: str, tmp_path: Path) -> None:
    """On every address of the machine, the log and the banner say so; the record has the one that is dialled."""
    if ":" in host and not _has_ipv6():
        pytest.skip("hardware: this machine has no IPv6")
    with process(tmp_path, "--log-level", "info", "--host", host) as server:
        banner = server.line(" listens on ")
        server.line("is ready at")
        status, record = server.embed("x")[0].status, server.record
        server.running.send_signal(signal.SIGINT)
        _, err = server.running.communicate(timeout=60)
    ports = [urlsplit(url).port for url in (record.url, record.observe_url)]
    assert status == 200
    assert [record.url, record.observe_url] == [f"http://{dialled}:{port}" for port in ports]
    assert f" listening url=http://{bound}:{ports[0]} observe_url=http://{bound}:{ports[1]} service=fleet" in err
    assert f" listens on http://{bound}:{ports[0]} (observation: http://{bound}:{ports[1]})" in banner


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False
