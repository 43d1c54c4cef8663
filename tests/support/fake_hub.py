"""A hub on this machine that speaks as much of the Hugging Face Hub's protocol as a download needs, over real sockets.

Large files (safetensors) have their sha256 as ETag, small ones their Git blob id, as on the hub.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """One repository, `main` at `COMMIT`. Fields may be changed while it runs."""

    repo: str
    files: dict[str, bytes]
    url: str = ""
    token: str | None = None
    """Asked of every request, when set."""
    status: int | None = None
    """Answered to every request, when set."""
    cut: dict[str, int] = field(default_factory=dict)
    """For a file: the connection is closed after so many bytes of it, once."""
    corrupt: set[str] = field(default_factory=set)
    """Files whose bytes are sent with the first one changed."""
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path and Range of every request."""

    def sent(self, name: str) -> list[str | None]:
        """The ranges of `name` that were asked for, None for the whole."""
        return [part for method, path, part in self.asked if method == "GET" and path.endswith(f"/{name}")]


def digest_of(name: str, content: bytes) -> str:
    """The hub's digest of a file."""
    if name.endswith(".safetensors"):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def files_of(directory: Path) -> dict[str, bytes]:
    """Every file below a directory, by its path."""
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()
    }


@contextmanager
def hub(repo: str, files: dict[str, bytes], address: tuple[str, int] = ("127.0.0.1", 0)) -> Iterator[FakeHub]:
    """The hub, listening on a free port of this machine, or at another address."""
    made = FakeHub(repo, files)
    with _Server(made, address) as server:
        made.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # a download asks for all files at once, and a busy machine is slow to accept

    def __init__(self, hub: FakeHub, address: tuple[str, int]) -> None:
        super().__init__(address, _Handler)
        self.hub = hub


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002  # the base class's word
        """Silent."""

    def _route(self) -> None:
        hub, path = self.server.hub, unquote(urlsplit(self.path).path)
        hub.asked.append((self.command, path, self.headers.get("Range")))
        if hub.status is not None:
            self._say(hub.status, {}, b"")
        elif hub.token is not None and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._say(401, {}, b'{"error": "Invalid username or password."}')
        elif (value := _api(hub, path)) is not None:
            self._say(200, {"Content-Type": "application/json"}, json.dumps(value).encode())
        elif (name := path.removeprefix(f"/{hub.repo}/resolve/{COMMIT}/")) in hub.files:
            self._file(name)
        else:
            code = "RevisionNotFound" if path.startswith(f"/api/models/{hub.repo}/") else "RepoNotFound"
            self._say(404, {"X-Error-Code": code}, b"")

    def _file(self, name: str) -> None:
        hub, status = self.server.hub, 200
        content = hub.files[name]
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{digest_of(name, content)}"', "Accept-Ranges": "bytes"}
        if name in hub.corrupt:
            content = bytes([content[0] ^ 1]) + content[1:]
        if (asked := self.headers.get("Range")) is not None:
            first, status = int(asked.removeprefix("bytes=").partition("-")[0]), 206
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
            content = content[first:]
        self._say(status, headers, content, hub.cut.pop(name, None) if self.command == "GET" else None)

    def _say(self, status: int, headers: dict[str, str], body: bytes, most: int | None = None) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:most])


def _api(hub: FakeHub, path: str) -> Any:
    if path == f"/api/models/{hub.repo}/revision/main":
        return {"id": hub.repo, "sha": COMMIT, "siblings": []}
    if path == f"/api/models/{hub.repo}/tree/{COMMIT}":
        return [_entry(name, content) for name, content in hub.files.items()]
    return None


def _entry(name: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
    if name.endswith(".safetensors"):
        entry["lfs"] = {"oid": digest_of(name, content), "size": len(content), "pointerSize": 134}
    else:
        entry["oid"] = digest_of(name, content)
    return entry
