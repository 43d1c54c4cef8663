"""The OpenAPI document against the server it describes, and the page that shows it."""

import asyncio
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from openapi_schema_validator import OAS31Validator

from embedfleet_server.app import public
from embedfleet_server.app.door import Door
from embedfleet_server.app.schedule import DEADLINE
from tests.support.fake_tasks import EVERY_TASK, task_of
from tests.support.graphs import embed, pipeline
from tests.support.served import Served, run, serving

GRAPH = pipeline(embed("dense"), name="index")

pytestmark = pytest.mark.requirement("S1")
CASES = int(os.environ.get("EMBEDFLEET_CASES", "450"))
"""Over all operations; `make soak` takes more."""


@contextmanager
def live() -> Iterator[str]:
    """The server in a thread of its own, for a client that blocks; gives its address."""
    started, stop = threading.Event(), asyncio.Event()
    found: list[tuple[asyncio.AbstractEventLoop, str]] = []

    async def main() -> None:
        async with serving(EVERY_TASK, default_model="semantic") as served:
            found.append((asyncio.get_running_loop(), f"http://{served.host}:{served.port}"))
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    try:
        assert started.wait(60)
        yield found[0][1]
    finally:
        found[0][0].call_soon_threadsafe(stop.set)
        thread.join(60)


async def document(served: Served) -> dict[str, Any]:
    reply = await served.ask("GET", "/openapi.json")
    assert (reply.status, reply.headers["Content-Type"].partition(";")[0]) == (200, "application/json")
    found: dict[str, Any] = reply.json
    return found


def test_no_case_breaks_the_server_or_the_document() -> None:
    """Of hundreds of generated requests, valid and not, none gets a 5xx, and every answer is as the document says."""
    schemathesis = pytest.importorskip("schemathesis")
    checks = schemathesis.checks
    seen: list[int] = []
    with live() as url:
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        operations = [result.ok() for result in schema.get_all_operations()]
        for operation in operations:

            @settings(
                max_examples=CASES // len(operations),
                derandomize=True,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy())
            def attempt(case: Any) -> None:
                response = case.call(base_url=url)
                seen.append(response.status_code)
                in_time = DEADLINE not in (case.headers or {})
                assert response.status_code < 500 or (response.status_code == 504 and not in_time), response.text
                wanted = [
                    checks.CHECKS.get_one(name)
                    for name in (
                        "status_code_conformance",
                        "content_type_conformance",
                        "response_schema_conformance",
                    )
                ]
                case.validate_response(response, checks=wanted)

            attempt()
    assert len(seen) > CASES // 2
    assert {200, 400} <= set(seen)


def test_the_document_is_openapi() -> None:
    """Version 3.1, every reference leads somewhere, every body and answer is a valid schema, every name is unique."""

    async def main() -> None:
        async with serving(EVERY_TASK, default_model="semantic") as served:
            found = await document(served)
            assert found["openapi"] == "3.1.0"
            for name in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(found)):
                assert name in found["components"]["schemas"]
            for schema in found["components"]["schemas"].values():
                OAS31Validator.check_schema(schema)
            operations = [op for methods in found["paths"].values() for op in methods.values()]
            assert len({op["operationId"] for op in operations}) == len(operations)
            for operation in operations:
                for media in operation.get("requestBody", {"content": {}})["content"].values():
                    OAS31Validator.check_schema(media["schema"])
                    assert not list(OAS31Validator(media["schema"]).iter_errors(media["example"]))

    run(main())


def test_every_route_is_in_the_document_and_answers() -> None:
    """What the router serves and what the document names are the same; each example is answered as told."""

    async def main() -> None:
        async with serving(EVERY_TASK, default_model="semantic", pipelines=[GRAPH]) as served:
            found = await document(served)
            named = {(m.upper(), path) for path, methods in found["paths"].items() for m in methods}
            routes = public.table(Door(served.engine, served.server._limits)).rows
            assert named == {(row.method, row.path) for row in routes}
            for row in routes:
                path = row.path.replace("{model}", task_of(row.path)).replace("{name}", GRAPH.name)
                body = {"data": json.dumps(row.example)} if row.example is not None else {}
                assert (await served.ask(row.method, path, **body)).status == 200, row.path

    run(main())


def test_the_page_needs_nothing_from_elsewhere() -> None:
    """`/docs` is one file: no address of any other host, and a policy under which a browser fetches from none."""

    async def main() -> None:
        async with serving(EVERY_TASK, default_model="semantic") as served:
            reply = await served.ask("GET", "/docs")
            assert (reply.status, reply.headers["Content-Type"].partition(";")[0]) == (200, "text/html")
            text = reply.body.decode()
            assert "//" not in re.sub(r"<script>.*</script>", "", text, flags=re.DOTALL)
            assert not re.search(r"https?:|<link|<img|src=", text)
            policy = reply.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy  # a page around it could have people type their key elsewhere
            assert reply.headers["X-Content-Type-Options"] == "nosniff"

    run(main())
