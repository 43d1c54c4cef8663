"""A debug journal: which requests the engine took and how each ended, a line each, so that nothing lost goes unseen.

`accepted ID` when the engine takes a request, `finished ID STATUS` when its answer is ready (`499`: the client left).
"""

from collections.abc import Callable
from pathlib import Path
from typing import IO

from aiohttp import web
from aiohttp.typedefs import Middleware

from embedfleet_server.app.errors import ADMITTED, Handler
from embedfleet_server.app.trace import MARKS

Accepted = Callable[[web.Request], None]
_CLIENT_GONE = 499


def silent(_: web.Request) -> None:
    """Keeps no journal."""


class Journal:
    """Writes each line at once, so that a process that is killed has told of all it took."""

    def __init__(self, path: Path) -> None:
        """Appends to `path`."""
        self._file: IO[str] = path.open("a", buffering=1, encoding="ascii")

    def accepted(self, request: web.Request) -> None:
        """The engine takes this request."""
        self._file.write(f"accepted {request[MARKS][0]}\n")

    def middleware(self) -> Middleware:
        """Stands outside of what turns errors into answers, inside of what marks requests."""

        @web.middleware
        async def note(request: web.Request, handler: Handler) -> web.StreamResponse:
            status = _CLIENT_GONE
            try:
                response = await handler(request)
                status = response.status
            finally:
                if request.get(ADMITTED):
                    self._file.write(f"finished {request[MARKS][0]} {status}\n")
            return response

        return note

    def close(self) -> None:
        """No more lines."""
        self._file.close()
