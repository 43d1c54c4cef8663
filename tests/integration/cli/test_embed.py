"""`embedfleet embed` and `get` against a server in a process of its own, with fake models."""

import io
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from tests.support.process import Process, process

CLI = [sys.executable, "-m", "embedfleet"]
EMBED = [*CLI, "embed", "--service", "fleet"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runtime directory of the test's own: no other service on this machine is seen."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Process]:
    (home / "embedfleet").symlink_to(home / "run")  # where the server of `process` leaves its record
    with process(home) as running:
        running.line("is ready at")
        yield running


def environ(home: Path) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("EMBEDFLEET_")} | {
        "XDG_RUNTIME_DIR": str(home)
    }


def run(
    home: Path, *arguments: str, given: bytes = b"", out: int | IO[Any] = subprocess.PIPE, command: list[str] = EMBED
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*command, *arguments],
        input=given,
        stdout=out,
        stderr=subprocess.PIPE,
        env=environ(home),
        timeout=120,
        check=False,
    )


def told(done: subprocess.CompletedProcess[bytes], status: int) -> str:
    """The message of a command that ended with `status`: one, and no traceback."""
    message = done.stderr.decode()
    assert done.returncode == status, message
    assert message.startswith("error: ")
    assert "Traceback" not in message
    return message


def expected(server: Process, *texts: str) -> np.ndarray[Any, Any]:
    return np.array([server.embed(text)[1]["data"][0]["embedding"] for text in texts], np.float32)


@pytest.mark.requirement("K5")
@pytest.mark.usefixtures("server")
def test_each_way_out_gives_the_same_file(server: Process, home: Path, tmp_path: Path) -> None:
    """A pipe, a file by `>`, one by `>>` and one by --output hold the same bytes: a row for each line, in order."""
    texts = [f"text {i}" for i in range(3000)]
    given = "\n".join(texts).encode()
    piped = run(home, given=given).stdout
    redirected, appended, named = (tmp_path / name for name in ("redirected.npy", "appended.npy", "named.npy"))
    with redirected.open("wb") as to, appended.open("ab") as at_end:
        run(home, given=given, out=to)
        run(home, given=given, out=at_end)
    run(home, "--output", str(named), given=given)
    assert piped == redirected.read_bytes() == appended.read_bytes() == named.read_bytes()
    vectors = np.load(io.BytesIO(piped))
    assert (vectors.shape, vectors.dtype) == ((3000, 8), np.float32)
    np.testing.assert_array_equal(vectors[[0, 1500, 2999]], expected(server, "text 0", "text 1500", "text 2999"))


def test_the_input_type_and_the_model_reach_the_server(server: Process, home: Path) -> None:
    """--input-type puts the model's prompt before each text; --url and --model choose as they say."""
    address = ["--url", server.record.url, "--model", "semantic"]
    asked = run(home, *address, "--input-type", "query", given=b"a b\n", command=[*CLI, "embed"])
    np.testing.assert_array_equal(np.load(io.BytesIO(asked.stdout)), expected(server, "query: a b"))
    assert "nope" in told(run(home, "--model", "nope", given=b"a\n"), 1)


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("given", "message"),
    [(b"", "no lines"), (b"a\n\nb\n", "line 2 is empty"), (b"a\n" * 5000 + b"b\xff\n", "line 5001 is not UTF-8")],
)
def test_bad_input_leaves_no_half_of_an_array(home: Path, tmp_path: Path, given: bytes, message: str) -> None:
    """Input that cannot be embedded ends with status 2; what was written is taken back, --output keeps what it held."""
    kept, cut = tmp_path / "kept.npy", tmp_path / "cut.npy"
    kept.write_bytes(b"before")
    assert message in told(run(home, "--output", str(kept), given=given), 2)
    with cut.open("wb") as out:
        assert message in told(run(home, given=given, out=out), 2)
    assert run(home, given=given).stdout == b""
    assert (kept.read_bytes(), cut.read_bytes()) == (b"before", b"")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.npy", "kept.npy"]


@pytest.mark.usefixtures("server")
def test_what_the_server_refuses_is_told_by_line(home: Path) -> None:
    """A text that only the model can judge, here one without a single token, is named by its line too."""
    assert "line 2: " in told(run(home, given=b"a\n \nb\n"), 2)


@pytest.mark.usefixtures("server")
def test_an_output_that_is_no_file_is_left_alone(home: Path, tmp_path: Path) -> None:
    """A folder is refused; a link is followed, and stays a link."""
    assert "no regular file" in told(run(home, "--output", str(tmp_path), given=b"a\n"), 2)
    link, target = tmp_path / "link.npy", tmp_path / "target.npy"
    link.symlink_to(target)
    assert run(home, "--output", str(link), given=b"a\n").returncode == 0
    assert link.is_symlink()
    assert np.load(target).shape == (1, 8)


def test_a_terminal_gets_no_vectors(home: Path) -> None:
    """With a terminal as standard output it refuses, before it looks for any service."""
    main, terminal = pty.openpty()
    try:
        assert "--output" in told(run(home, given=b"a\n", out=terminal), 2)
    finally:
        os.close(main)
        os.close(terminal)


def test_no_such_service_is_told(home: Path) -> None:
    """Neither a name that nothing has nor an address where nobody listens gives a traceback."""
    assert "nope" in told(run(home, "--service", "nope", given=b"a\n", command=[*CLI, "embed"]), 1)
    nobody = [*CLI, "embed", "--url", "http://127.0.0.1:1"]
    assert "127.0.0.1:1" in told(run(home, given=b"a\n", command=nobody), 1)


def test_ctrl_c_ends_with_130(server: Process, home: Path, tmp_path: Path) -> None:
    """Ctrl-C while a batch is under way ends with status 130, no traceback and no file."""
    output = tmp_path / "out.npy"
    with subprocess.Popen(
        [*EMBED, "--output", str(output)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environ(home)
    ) as running:
        assert running.stdin is not None
        running.stdin.write(b"HOLD\n")
        running.stdin.close()
        with server.gate.open("w"):  # opens once the forward waits at it
            running.send_signal(signal.SIGINT)
            assert running.wait(60) == 130
        assert running.stderr is not None
        assert b"Traceback" not in running.stderr.read()
    assert list(tmp_path.iterdir()) == []


def test_get_lists_what_runs(server: Process, home: Path) -> None:
    """The table and the JSON name the service, its address, process, state and models."""
    shown = run(home, command=[*CLI, "get"]).stdout.decode().splitlines()
    assert len(shown) == 2
    assert shown[1].split() == ["fleet", "Ready", server.record.url, str(server.running.pid), "semantic"]
    (entry,) = json.loads(run(home, "-o", "json", command=[*CLI, "get"]).stdout)
    assert (entry["service"], entry["state"]) == ("fleet", "Ready")
    assert entry["models"] == [{"name": "semantic", "state": "Ready"}]
