"""Which pod it was: a header of every answer, so that a client can say where its vectors come from."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embedfleet
from embedfleet_server.app import public
from embedfleet_server.app.door import Door
from embedfleet_server.app.keys import Keys
from tests.support.fake_tasks import EVERY_TASK, task_of
from tests.support.graphs import embed, pipeline
from tests.support.process import process
from tests.support.served import run, serving

POD = "X-Embedfleet-Pod"
NAME = "semantic-5d8f-x2kq9"


@pytest.mark.requirement("S1")
def test_every_route_names_its_pod() -> None:
    """Of every dialect, good answers and errors; and the OpenAPI document says so of each."""
    graph = pipeline(embed("dense"), name="index")

    async def main() -> None:
        async with serving(EVERY_TASK, default_model="semantic", pipelines=[graph], pod=NAME) as served:
            document = (await served.ask("GET", "/openapi.json")).json
            for row in public.table(Door(served.engine, served.server._limits)).rows:
                path = row.path.replace("{model}", task_of(row.path)).replace("{name}", graph.name)
                body = {"data": json.dumps(row.example)} if row.example is not None else {}
                reply = await served.ask(row.method, path, **body)
                assert (reply.status, reply.headers[POD]) == (200, NAME), row.path
                told: Any = document["paths"][row.path][row.method.lower()]["responses"]["200"]
                assert POD in told["headers"]
            for refused in (await served.ask("GET", "/no/such/route"), await served.embed([])):
                assert refused.headers[POD] == NAME

    run(main())


@pytest.mark.requirement("S6")
def test_whom_a_key_keeps_out_is_told_of_no_pod(tmp_path: Path) -> None:
    """A 401 says nothing of what is inside."""
    (tmp_path / "tenant").write_text("secret")

    async def main() -> None:
        async with serving(keys=Keys(tmp_path), pod=NAME) as served:
            refused = await served.embed("x")
            assert (refused.status, POD in refused.headers) == (401, False)
            assert (await served.embed("x", headers={"X-API-Key": "secret"})).headers[POD] == NAME

    run(main())


@pytest.mark.requirement("K1")
@pytest.mark.parametrize("in_pod", [True, False])
def test_the_sdk_names_the_pods_of_its_vectors(tmp_path: Path, *, in_pod: bool) -> None:
    """A process in a pod tells its host's name, one on a laptop none; the result of a call has it."""
    told = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"} if in_pod else {}
    with process(tmp_path, extra={"HOSTNAME": NAME, **told}) as running:
        running.line("is ready at")
        with embedfleet.connect(url=running.record.url) as service:
            result = service.embed(["a", "b"], with_info=True)
            assert result.pods == ((NAME,) if in_pod else ())
            assert np.isfinite(result.array).all()
        running.running.kill()  # a pod's drain would take its time
