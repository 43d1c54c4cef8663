"""`python -m embedfleet_server.drain`: the preStop hook. Begins the server's drain and waits for its end.

Standard library only, and little of it, so that it starts in milliseconds; it writes nothing, so the root file system
may be read-only. SIGTERM begins the same drain: whichever comes first, the other changes nothing.
"""

import os
import socket
import sys
from collections.abc import Mapping, Sequence

_REQUEST = b"POST /drain HTTP/1.1\r\nHost: local\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_USAGE = "usage: python -m embedfleet_server.drain [--socket PATH | --runtime DIR]"


class CannotDrain(Exception):
    """No server could be asked; the message says which socket and why."""


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Drain and wait; 0 once it is over, 1 when no server could be asked, 2 for wrong arguments."""
    options = {"--socket": "", "--runtime": ""}
    names, values = arguments[::2], arguments[1::2]
    if len(names) != len(values) or len(names) > 1 or not set(names) <= set(options):
        print(_USAGE, file=sys.stderr)
        return 2
    options.update(zip(names, values, strict=True))
    try:
        drain(options["--socket"] or only_socket(options["--runtime"] or runtime_directory(environ)))
    except CannotDrain as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def runtime_directory(environ: Mapping[str, str]) -> str:
    """Where a server puts its socket: as `embedfleet.api.local` says, which is not imported for its weight."""
    given = environ.get("XDG_RUNTIME_DIR")
    if given:
        return os.path.join(given, "embedfleet")  # noqa: PTH118  # pathlib takes longer to import than the rest
    temporary = environ.get("TMPDIR") or "/tmp"  # noqa: S108  # nosec B108  # as tempfile does, without asking whether it can write
    return os.path.join(temporary, f"embedfleet-{os.getuid()}")  # noqa: PTH118


def only_socket(directory: str) -> str:
    """The control socket in `directory`; raises `CannotDrain` unless there is exactly one."""
    try:
        found = sorted(name for name in os.listdir(directory) if name.endswith(".sock"))  # noqa: PTH208
    except OSError as error:
        raise CannotDrain(f"{directory} cannot be listed: {error.strerror}; --socket PATH names the socket") from error
    if len(found) != 1:
        raise CannotDrain(
            f"{directory} holds {len(found)} control sockets ({', '.join(found) or 'none'}); --socket PATH names one"
        )
    return os.path.join(directory, found[0])  # noqa: PTH118


def drain(path: str) -> None:
    """Ask the server behind `path` to drain and wait until it has; raises `CannotDrain`."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(path)
            connection.sendall(_REQUEST)
            answer = _all(connection)
        except OSError as error:
            raise CannotDrain(f"no server answers at {path}: {error.strerror or error}") from error
    status = answer.partition(b"\r\n")[0].decode("latin-1")
    if answer and not status.startswith("HTTP/1.1 200 "):
        raise CannotDrain(f"the server at {path} does not drain: {status[:80]}")


def _all(connection: socket.socket) -> bytes:
    """What the server says to its end. Nothing at all means that it ended first, which is the end of its drain too."""
    answer = b""
    while piece := connection.recv(4096):
        answer += piece
    return answer


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
