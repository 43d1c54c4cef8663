"""The OpenAPI 3.1 document, from the rows of the routes, the fields of their bodies and the table of errors."""

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from embedfleet_server.app import fields
from embedfleet_server.app.answers import POD
from embedfleet_server.app.errors import HTTP, TABLE
from embedfleet_server.app.routes import Route
from embedfleet_server.app.schedule import DEADLINE, PRIORITY
from embedfleet_server.app.shapes import ErrorAnswer, TeiError, components, ref
from embedfleet_server.app.trace import REQUEST_ID, TRACEPARENT

_TEI = "text-embeddings-inference"
_SCHEDULE: Mapping[str, Mapping[str, Any]] = {
    PRIORITY: {"type": "string", "pattern": "^([0-9]{1,2}|1[0-9]{2}|2[0-4][0-9]|25[0-5]|LOW|NORMAL|HIGH|CRITICAL)$"},
    DEADLINE: {"type": "integer", "minimum": 1 - 10**15, "maximum": 10**15 - 1},
}
"""Headers of every route that embeds."""
_MARKS: Mapping[str, Mapping[str, Any]] = {REQUEST_ID: {"type": "string"}, TRACEPARENT: {"type": "string"}}

_SAID: Mapping[str, Mapping[str, Any]] = {
    REQUEST_ID: {"description": "The request's own, or one made for it.", "schema": {"type": "string"}},
    TRACEPARENT: {"description": "The span of this request.", "schema": {"type": "string"}},
    POD: {"description": "The pod that answered, where it is one.", "schema": {"type": "string"}},
}
"""Headers of every answer."""


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """The whole document."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "embedfleet",
            "version": version("embedfleet-server"),
            "description": "Text embeddings. OpenAI's routes and text-embeddings-inference's, and what they lack.",
        },
        "paths": paths,
        "components": {
            "schemas": components(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": route.name,
        "tags": [route.dialect],
        "summary": route.about,
        "parameters": _parameters(route),
        "responses": _answers(route),
        "security": [] if route.is_open else [{}, {"bearer": []}, {"header": []}],
    }
    if route.takes is not None:
        content: dict[str, Any] = {"schema": fields.schema(route.takes)}
        if route.example is not None:
            content["example"] = route.example
        made["requestBody"] = {"required": True, "content": {"application/json": content}}
    return made


def _parameters(route: Route) -> list[dict[str, Any]]:
    names = re.findall(r"{(\w+)}", route.path)
    path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}} for name in names
    ]
    headers = {**route.headers, **(_SCHEDULE if route.takes is not None else {}), **_MARKS}
    return path + [{"name": name, "in": "header", "schema": dict(schema)} for name, schema in headers.items()]


def _answers(route: Route) -> dict[str, Any]:
    good = {kind: {"schema": dict(schema)} for kind, schema in route.gives.items()}
    error = ref(TeiError if route.dialect == _TEI else ErrorAnswer)
    said = {"description": "As asked.", "headers": _SAID}
    answers: dict[str, Any] = {"200": {**said, **({"content": good} if good else {})}}
    for status in _statuses(route):
        answers[str(status)] = {"description": _words(status), "content": {"application/json": {"schema": error}}}
    return answers


def _statuses(route: Route) -> list[int]:
    """The statuses of errors that the route can answer with; the rest of the table needs a body."""
    table = {row.status for row in TABLE.values()} | set(HTTP)
    return sorted(table if route.takes is not None else table & {400, 401, 404, 405, 500, 503})


def _words(status: int) -> str:
    """The codes of the table's rows with this status."""
    return ", ".join(sorted({row.code for row in (*TABLE.values(), *HTTP.values()) if row.status == status}))
