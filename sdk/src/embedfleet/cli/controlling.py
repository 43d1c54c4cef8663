"""`embedfleet pause|resume|set|unset|stats`: talk to a local server over its control socket."""

import json
import os
import socket
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection
from typing import Any

from embedfleet.api.local import LocalRecord, read_records, runtime_directory
from embedfleet.cli.target import Target
from embedfleet.errors import BadInput, ServiceNotFound, ServiceUnavailable

_ANSWER_SECONDS = 5.0  # the socket answers from the event loop, which nothing holds up for long
_OK = 200


def command(name: str, path: str, values: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Send one command to the local service `name`; returns its state.

    Raises `ServiceNotFound`, `BadInput` for what the server refuses, `ServiceUnavailable` when it does not answer.
    """
    record = _record(name)
    if record.socket is None:
        raise ServiceUnavailable(f"service {name!r} (pid {record.pid}) has no control socket")
    try:
        status, answer = _ask(record.socket, path, values)
    except (OSError, ValueError) as error:
        raise ServiceUnavailable(f"service {name!r} (pid {record.pid}) does not answer at {record.socket}") from error
    if status != _OK:
        raise BadInput(str(answer["error"]["message"]))
    return answer


def assignments(given: Sequence[str]) -> dict[str, Any]:
    """`maxBatchSize=64` and the like as values; a value is JSON where it can be read as such, else text."""
    pairs = [text.partition("=") for text in given]
    wrong = [text for text, (name, equals, _) in zip(given, pairs, strict=True) if not (name and equals)]
    if wrong:
        raise BadInput(f"{wrong[0]!r} must be FIELD=VALUE, as in maxBatchSize=64")
    return {name: _value(value) for name, _, value in pairs}


def is_meant_here(target: Target) -> bool:
    """Whether a service of this machine is meant: one of the name runs here, or there is no cluster to have it."""
    if target.is_in_a_cluster:
        return False
    runs = any(record.service == target.name for record in read_records(runtime_directory(os.environ)))
    return runs or not target.may_be_in_a_cluster


def shown(state: Mapping[str, Any]) -> str:
    """A service's state in a few lines."""
    counts = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in state["stats"].items())
    lines = [
        f"service   {state['service']} (settings generation {state['generation']})",
        f"queues    {', '.join(f'{name} {depth}' for name, depth in state['queues'].items())}",
        f"inputs    {counts}",
        f"paused    {', '.join(state['paused']) or 'none'}",
        f"override  {_pairs(state['overrides']) or 'none'}",
        f"in force  {_pairs(state['batching'])}",
    ]
    return "\n".join(lines)


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={json.dumps(value)}" for name, value in values.items())


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _record(name: str) -> LocalRecord:
    directory = runtime_directory(os.environ)
    records = read_records(directory)
    for record in records:
        if record.service == name:
            return record
    running = ", ".join(record.service for record in records) or "none"
    raise ServiceNotFound(f"no service {name!r} runs on this machine (looked in {directory}; running: {running})")


class _UnixConnection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_ANSWER_SECONDS)
        self.sock.connect(self._path)


def _ask(path: str, command_: str, values: Mapping[str, Any] | None) -> tuple[int, dict[str, Any]]:
    connection = _UnixConnection(path)
    try:
        method, body = ("GET", None) if values is None else ("POST", json.dumps(values))
        connection.request(method, f"/{command_}", body)
        answer = connection.getresponse()
        return answer.status, dict(json.loads(answer.read()))
    finally:
        connection.close()
