"""The driver of `make demo`: it waits for a real process to be ready, tells a failed one, and leaves none behind."""

import os
import signal
import sys
from pathlib import Path

import pytest

from tools.demo import DemoFailed, serving, stop

# A process that does what a server does as far as the driver sees it: a record, an answer to /ready, an exit status.
SERVER = """
import os, signal, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from embedfleet.api.local import LocalRecord, runtime_directory, write_record

class Ready(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

listener = HTTPServer(("127.0.0.1", 0), Ready)
url = f"http://127.0.0.1:{listener.server_port}"
signal.signal(signal.SIGTERM, lambda *_: sys.exit(int(sys.argv[1])))
record = LocalRecord(service="fake", pid=os.getpid(), url=url, observe_url=url, models=["a"])
write_record(runtime_directory(os.environ), record)
listener.serve_forever()
"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", SERVER, *arguments]


def environ(folder: Path) -> dict[str, str]:
    return {**os.environ, "XDG_RUNTIME_DIR": str(folder)}


def test_a_server_that_ends_well_is_stopped_by_sigterm(tmp_path: Path) -> None:
    """Exit status 0 after SIGTERM is success."""
    with serving(command("0"), environ(tmp_path), tmp_path / "log") as server:
        stop(server)
    assert server.returncode == 0


def test_a_server_that_ends_badly_is_a_failure(tmp_path: Path) -> None:
    """Another exit status after SIGTERM is told."""
    with (
        pytest.raises(DemoFailed, match="status 3 after SIGTERM"),
        serving(command("3"), environ(tmp_path), tmp_path / "log") as server,
    ):
        stop(server)


def test_a_server_that_never_starts_is_a_failure(tmp_path: Path) -> None:
    """A server that ends before it is ready fails the demo at once, and its last words are in the log."""
    dying = [sys.executable, "-c", "import sys; sys.exit('no weights here')"]
    with (
        pytest.raises(DemoFailed, match="status 1 before it was ready"),
        serving(dying, environ(tmp_path), tmp_path / "log"),
    ):
        pytest.fail("a dead server was taken for a ready one")
    assert "no weights here" in (tmp_path / "log").read_text(encoding="utf-8")


def test_no_server_is_left_behind(tmp_path: Path) -> None:
    """Whatever leaves the block, the server is gone."""
    with (
        pytest.raises(KeyboardInterrupt),
        serving(command("0"), environ(tmp_path), tmp_path / "log") as server,
    ):
        raise KeyboardInterrupt
    assert server.returncode == -signal.SIGKILL
