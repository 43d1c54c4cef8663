"""The demo: fill the local store of weights, start a service, search the standard library with it, stop it by SIGTERM.

Exits 0 only if every step worked; whatever happens, no server is left behind.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from embedfleet.api.local import LocalRecord, read_records, runtime_directory

ROOT = Path(__file__).resolve().parent.parent
MANIFEST = "examples/embeddingservice.yaml"
EXAMPLE = "examples/search_stdlib.py"
SERVE = [str(Path(sys.executable).with_name("embedfleet")), "serve", "-f", MANIFEST, "--port", "0"]
READY_SECONDS = 300.0
"""Three models were ready after 7 to 17 s on two busy cores; reading PyTorch from a slow disk can take minutes."""
STOP_SECONDS = 60.0
"""Above the manifest's drain.requestSeconds (30), so that the server's own limit is the one that acts."""
POLL_SECONDS = 0.1


class DemoFailed(Exception):
    """A step of the demo did not work; the message says which."""


def main() -> int:
    """Run the demo; returns the exit status."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    with tempfile.TemporaryDirectory(prefix="embedfleet-demo-") as folder:
        # A runtime directory of its own: a service of the same name that already runs here is neither found nor hidden.
        environ = {**os.environ, "XDG_RUNTIME_DIR": folder}
        log = Path(folder) / "server.log"
        try:
            _run("filling the local store of weights", _fill(environ), environ)
            with serving(SERVE, environ, log) as server:
                _run("searching the standard library", [sys.executable, EXAMPLE], environ)
                stop(server)
        except DemoFailed as failure:
            _show(failure, log)
            return 1
        print("\n".join(["", "what the server said:", *_last_lines(log, 40)]))
    return 0


@contextlib.contextmanager
def serving(command: list[str], environ: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The server that `command` starts, ready; however the block is left, it is gone then."""
    print("starting:", Path(command[0]).name, *command[1:], flush=True)
    with log.open("wb") as out, subprocess.Popen(command, cwd=ROOT, env=environ, stdout=out, stderr=out) as server:
        try:
            started = time.monotonic()
            record = _ready(server, environ)
            print(f"ready after {time.monotonic() - started:.1f} s at {record.url}", flush=True)
            yield server
        finally:
            server.kill()


def _ready(server: subprocess.Popen[bytes], environ: dict[str, str]) -> LocalRecord:
    """The server's own record, once it answers that it is ready."""

    def ready() -> LocalRecord | None:
        if server.poll() is not None:
            raise DemoFailed(f"the server ended with status {server.returncode} before it was ready")
        records = read_records(runtime_directory(environ))
        return next((record for record in records if _answers(f"{record.observe_url}/ready")), None)

    return _wait(ready, READY_SECONDS, "the server was not ready")


def _wait(ask: Callable[[], LocalRecord | None], seconds: float, failure: str) -> LocalRecord:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if (found := ask()) is not None:
            return found
        time.sleep(POLL_SECONDS)
    raise DemoFailed(f"{failure} after {seconds:.0f} s")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  # the address stands in the server's record
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def stop(server: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM and wait; `DemoFailed` when the server does not end with status 0 in good time."""
    print("stopping the server by SIGTERM", flush=True)
    server.send_signal(signal.SIGTERM)
    try:
        status = server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        raise DemoFailed(f"the server did not end within {STOP_SECONDS:.0f} s of SIGTERM") from None
    if status != 0:
        raise DemoFailed(f"the server ended with status {status} after SIGTERM")


def _fill(environ: dict[str, str]) -> list[str]:
    """The command that fills the store which the server will read."""
    store = environ.get("EMBEDFLEET_STORE")
    return [sys.executable, "tools/weights.py", *([store] if store else [])]


def _run(step: str, command: list[str], environ: dict[str, str]) -> None:
    print(step, flush=True)
    status = subprocess.run(command, cwd=ROOT, env=environ, check=False).returncode
    if status != 0:
        raise DemoFailed(f"{step}: {' '.join(command[1:])} ended with status {status}")


def _show(failure: DemoFailed, log: Path) -> None:
    print(f"\nthe demo failed: {failure}", file=sys.stderr)
    if log.exists():
        print("the server's log:", *_last_lines(log, 200), sep="\n", file=sys.stderr)


def _last_lines(log: Path, count: int) -> list[str]:
    return [f"  {line}" for line in log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]]


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
