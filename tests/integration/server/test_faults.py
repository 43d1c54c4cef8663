"""Faults of a device, through a model that has them: what callers see, what probes see, how the process ends."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from embedfleet.api.termination import parse
from embedfleet_server.__main__ import main
from embedfleet_server.engine.errors import ModelLoadFailed
from embedfleet_server.engine.protocols import Model
from tests.support.fake_model import FakeModel, Gate
from tests.support.process import process
from tests.support.served import run, serving


@pytest.mark.requirement("B22", "S5")
def test_a_lost_device_ends_the_process(tmp_path: Path) -> None:
    """All in flight, running and waiting, get 503 `device_lost`; then the process exits 70, and the cause is
    where Kubernetes looks.
    """
    word = tmp_path / "termination-log"
    word.touch()
    with process(tmp_path, "--termination-log", str(word)) as server, ThreadPoolExecutor() as pool:
        server.line("is ready at")
        held = pool.submit(server.embed, "HOLD LOSE")
        with server.gate.open("w"):  # opens once the forward waits at the other end
            waiting = [pool.submit(server.embed, f"text {number}") for number in range(3)]
            while server.ask("GET", "/state", observe=True)[1]["stats"]["submitted"] < 4:
                pass
        for one in (held, *waiting):
            response, body = one.result()
            assert (response.status, body["error"]["code"], body["error"]["accepted"]) == (503, "device_lost", True)
            assert int(response.headers["Retry-After"]) >= 1
        _, err = server.running.communicate(timeout=60)
        assert server.running.returncode == 70
    said = parse(word.read_text())
    assert said is not None
    assert (said.code, said.message) == ("DeviceLost", "CUDA error: an illegal memory access was encountered")
    assert "the device is lost" in err
    assert "Traceback" not in err


@pytest.mark.requirement("S5")
def test_wrong_settings_leave_their_cause(tmp_path: Path) -> None:
    """Exit status 2; the field stands in the last words too."""
    (tmp_path / "models.json").write_text(json.dumps({"service": "fleet", "models": []}))
    (tmp_path / "batching.json").write_text("{}")
    word = tmp_path / "termination-log"
    word.touch()
    assert main(["--settings", str(tmp_path), "--termination-log", str(word)]) == 2
    said = parse(word.read_text())
    assert said is not None
    assert said.code == "SettingsInvalid"
    assert "models" in said.message


@pytest.mark.requirement("S5")
def test_a_batch_that_hangs_is_found_by_the_liveness_probe() -> None:
    """Once it runs for more than twice `itemTimeoutSeconds` only a restart helps; its callers have 504 before that."""

    async def main() -> None:
        async with serving(item_timeout_seconds=1) as served:
            assert (await served.embed("HOLD")).status == 504
            while (live := await served.observe("/live")).status == 200:  # each look is a round trip
                pass
            assert "a batch of model 'semantic' has been running for" in live.json["reason"]
            served.gate.opened.set()
            await served.until(lambda: not served.engine.stats().active_batches)
            assert (await served.observe("/live")).status == 200

    run(main())


@pytest.mark.requirement("S5")
def test_a_blocked_loop_answers_no_probe() -> None:
    """While the event loop is held up `/live` gives no answer, which is what a probe takes for dead."""
    gate = Gate()

    async def main() -> None:
        async with serving({"semantic": FakeModel}) as served:
            assert (await served.observe("/live")).status == 200
            port = served.observe_port

            def probe() -> None:
                assert gate.reached.wait(60)
                told.append(_answers(port))
                gate.opened.set()

            told: list[bool] = []
            probing = threading.Thread(target=probe)
            probing.start()
            gate()
            probing.join()
            assert told == [False]
            assert (await served.observe("/live")).status == 200

    run(main())


@pytest.mark.requirement("S5", "B12", "B23")
def test_what_a_restart_would_not_help() -> None:
    """Bad rows, failing forwards, too little memory, a model that cannot load, a full queue: each is alive."""

    def never() -> Model:
        raise ModelLoadFailed("code", "its weights are corrupt")

    async def main() -> None:
        gate = Gate()
        models = {"semantic": lambda: FakeModel(hold=gate), "code": never}
        async with serving(models, wait=False, max_queued_requests=2, max_concurrent_batches=1) as served:
            await served.until(lambda: served.engine.models()[1].state == "Failed")
            for text, status in (("NOTFINITE", 500), ("BREAK", 500), ("FULL", 413), ("good", 200)):
                assert (await served.embed(text, model="semantic")).status == status, text
                assert (await served.observe("/live")).status == 200, text
            assert (await served.embed("x", model="code")).status == 503
            held = [asyncio.create_task(served.embed("HOLD", model="semantic"))]
            await served.until(gate.reached.is_set)
            held += [asyncio.create_task(served.embed(f"t{n}", model="semantic")) for n in range(2)]
            await served.until(lambda: served.engine.total_queue_depth == 2)
            assert (await served.embed("more", model="semantic")).status == 429
            assert (await served.observe("/live")).status == 200
            gate.opened.set()
            assert [(await one).status for one in held] == [200] * 3

    run(main())


def _answers(port: int) -> bool:
    """Whether a probe gets an answer within a quarter of a second."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=0.25)
    try:
        connection.request("GET", "/live")
        return connection.getresponse().status == 200
    except TimeoutError:
        return False
    finally:
        connection.close()
