"""Servers of pods that kwok pretends: one HTTP proxy that answers each pod's `/state` in its place."""

import json
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Answer = Callable[[str], Mapping[str, Any] | None]
"""What the pod at an address answers; None: it is silent."""
_STATE = re.compile(r"http://([0-9.]+):8081/state")


class HollowServers:
    """Answers inside; `url` is the proxy through which the operator asks."""

    def __init__(self, answer: Answer) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = _STATE.fullmatch(self.path)
                told = answer(found[1]) if found else None
                body = json.dumps(told).encode()
                with suppress(ConnectionError):  # the operator waits for 2 s alone
                    self.send_response(502 if told is None else 200)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,)).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    request_queue_size = 1024  # as many as the operator asks at once, and more
