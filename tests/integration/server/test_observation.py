"""The observation port: three probes, metrics, state; nothing can be changed from there."""

import asyncio
import threading

import pytest

from embedfleet_server.engine.protocols import Model
from tests.support.fake_model import FakeModel
from tests.support.served import run, serving

pytestmark = pytest.mark.requirement("S5")


def test_not_ready_until_loaded() -> None:
    """While the model loads the server is live but neither started nor ready, and says which model is missing."""
    loaded = threading.Event()

    def load() -> Model:
        assert loaded.wait(60)
        return FakeModel()

    async def main() -> None:
        async with serving({"semantic": load}, wait=False) as served:
            for path, status in (("/startup", 503), ("/live", 200), ("/ready", 503)):
                assert (await served.observe(path)).status == status, path
            assert (await served.observe("/ready")).json["reason"] == "model semantic is Loading"
            loaded.set()
            await served.until(lambda: served.engine.ready)
            for path in ("/startup", "/live", "/ready"):
                assert (await served.observe(path)).status == 200, path

    run(main())


def test_closing_is_not_ready_but_alive_and_started() -> None:
    """A server that drains is taken out of service, not restarted."""

    async def main() -> None:
        async with serving() as served:
            assert (await served.observe("/startup")).status == 200
            request = asyncio.create_task(served.embed("HOLD"))
            await served.until(served.gate.reached.is_set)
            draining = asyncio.create_task(served.server.drain(10))
            await served.until(lambda: served.server.lifecycle.is_closing)
            assert (await served.observe("/ready")).json["reason"] == "the server is shutting down"
            assert [(await served.observe(path)).status for path in ("/startup", "/live")] == [200, 200]
            assert (await served.observe("/state")).json["lifecycle"] == "Closing"
            served.gate.opened.set()
            assert (await request).status == 200
            await draining

    run(main())


def test_read_only() -> None:
    """Every method that could change something is refused on every path; HEAD is GET without the body."""

    async def main() -> None:
        async with serving() as served:
            for path in ("/startup", "/live", "/ready", "/metrics", "/state"):
                for method in ("POST", "PUT", "PATCH", "DELETE"):
                    reply = await served.observe(path, method)
                    assert (reply.status, reply.error["code"]) == (405, "method_not_allowed")
                assert (await served.observe(path, "HEAD")).status == 200
            assert (await served.observe("/v1/models")).status == 404

    run(main())


def test_state_tells_what_runs() -> None:
    """`/state` holds the generation, the models, the queues, the counts and the sizes of the batches."""

    async def main() -> None:
        async with serving() as served:
            await served.embed(["a", "b", "c"])
            state = (await served.observe("/state")).json
            assert (state["service"], state["generation"], state["lifecycle"]) == ("fleet", 7, "Serving")
            assert state["ready"] is True
            assert state["uptime_seconds"] >= 0
            assert [(m["name"], m["state"], m["dimensions"]) for m in state["models"]] == [("semantic", "Ready", 8)]
            assert state["queues"] == {"semantic": 0}
            assert [(m["device"], m["devices"]) for m in state["models"]] == [("cpu", ["cpu"])]
            assert (state["devices"]["cpu"]["batches"], state["devices"]["cpu"]["failing"]) == (0, [])
            assert state["devices"]["cpu"]["busy_seconds"] > 0
            assert state["stats"]["completed"] == 3
            assert sum(int(size) * count for size, count in state["batches"]["sizes"].items()) == 3

    run(main())


@pytest.mark.requirement("H3")
def test_metrics_count_requests_inputs_and_tokens() -> None:
    """Requests by code, inputs and tokens by model, and the engine's own figures are in Prometheus' text."""

    async def main() -> None:
        async with serving() as served:
            await served.embed(["a b", "c"])
            await served.embed("x", model="nope")
            await served.ask("GET", "/no/such/route")
            reply = await served.observe("/metrics")
            assert reply.headers["Content-Type"].startswith("text/plain")
            lines = reply.body.decode().splitlines()
            for line in (
                'embedfleet_requests_total{code="ok"} 1.0',
                'embedfleet_requests_total{code="model_not_found"} 1.0',
                'embedfleet_requests_total{code="not_found"} 1.0',
                'embedfleet_requests_total{code="queue_full"} 0.0',
                'embedfleet_inputs_total{model="semantic"} 2.0',
                'embedfleet_tokens_total{model="semantic"} 3.0',
                'embedfleet_queue_inputs{model="semantic"} 0.0',
                'embedfleet_model_ready{model="semantic"} 1.0',
                "embedfleet_active_batches 0.0",
                'embedfleet_device_batches{device="cpu"} 0.0',
                'embedfleet_device_failing_models{device="cpu"} 0.0',
            ):
                assert line in lines
            assert "nope" not in reply.body.decode()
            (busy,) = [line for line in lines if line.startswith('embedfleet_device_busy_seconds_total{device="cpu"}')]
            assert float(busy.split()[1]) > 0

    run(main())
