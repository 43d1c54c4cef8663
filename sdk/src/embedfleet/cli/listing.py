"""`embedfleet get`: the services that run on this machine, and how they are."""

import json
import os
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

from embedfleet.api.local import LocalRecord, read_records, runtime_directory
from embedfleet.cli.printing import table, text_of

ANSWER_SECONDS = 1.0
"""Longest wait for an observation port. It answers while its server is busy, so silence says something."""
NO_ANSWER = "no answer"
_MOST_BYTES = 1 << 20
_COLUMNS = ("SERVICE", "STATE", "URL", "PID", "MODELS")


@dataclass(frozen=True, slots=True)
class Running:
    """A service here: its record, its state in a word, and the state of each model whose state is known."""

    record: LocalRecord
    state: str
    models: dict[str, str]


def running() -> list[Running]:
    """The services whose process lives, by name; each is asked for its state."""
    records = read_records(runtime_directory(os.environ))
    with ThreadPoolExecutor(max_workers=8) as pool:
        return list(pool.map(_running, records))


def as_table(found: Sequence[Running]) -> str:
    """A line for each service, under a heading; models that are not ready say how they are."""
    if not found:
        return f"no service runs here (looked in {runtime_directory(os.environ)})"
    return table([_COLUMNS, *(_cells(service) for service in found)])


def as_json(found: Sequence[Running]) -> str:
    """A list of objects: the record's fields and `state`; each model with its `state`, null where it is not known."""
    return text_of(plain(found), "json")


def plain(found: Sequence[Running]) -> list[dict[str, Any]]:
    """The same as plain values."""
    return [_plain(service) for service in found]


def _plain(service: Running) -> dict[str, Any]:
    models = [{"name": name, "state": service.models.get(name)} for name in service.record.models]
    return service.record.model_dump(by_alias=True) | {"state": service.state, "models": models}


def _cells(service: Running) -> tuple[str, ...]:
    record = service.record
    models = ", ".join(model(name, service.models.get(name, "Ready")) for name in record.models)
    return record.service, service.state, record.url, str(record.pid), models


def model(name: str, state: str) -> str:
    """A model's name, and how it is unless it is ready."""
    return name if state == "Ready" else f"{name} ({state.lower()})"


def _running(record: LocalRecord) -> Running:
    try:
        told = _ask(f"{record.observe_url}/state")
        models = {str(model["name"]): str(model["state"]) for model in told["models"]}
        return Running(record, _word(told), models)
    except (
        OSError,
        HTTPException,
        ValueError,
        KeyError,
        TypeError,
    ):  # whatever listens there now, it is no such server
        return Running(record, NO_ANSWER, {})


def _ask(url: str) -> Any:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy leads to this machine
    with opener.open(url, timeout=ANSWER_SECONDS) as answer:
        return json.loads(answer.read(_MOST_BYTES))


def _word(told: dict[str, Any]) -> str:
    """`Ready`, `NotReady`, or the lifecycle's own word once the server is leaving."""
    lifecycle = str(told["lifecycle"])
    if lifecycle != "Serving":
        return lifecycle
    return "Ready" if told["ready"] else "NotReady"
