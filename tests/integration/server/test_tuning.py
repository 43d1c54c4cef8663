"""Values that change while the server runs: the settings file, and overrides over the control socket."""

import json
from pathlib import Path

import aiohttp
import pytest

from embedfleet.api import Batching, BatchingSettings, HuggingFaceSource, ModelSettings, ModelSpec, Source
from embedfleet.api.settings import BATCHING_FILE, MODELS_FILE, to_json
from embedfleet_server.app.control import AskedDrain, ControlSocket
from embedfleet_server.app.signals import StopSignal
from embedfleet_server.app.tuning import Tuning
from tests.support.served import Served, run, serving

FILE = "the settings file's"


def write(directory: Path, generation: int, **batching: int) -> None:
    """The two files, as a kubelet or `embedfleet serve` leaves them."""
    model = ModelSpec(name="semantic", source=Source(hugging_face=HuggingFaceSource(repo="a/b")))
    models = ModelSettings(service="fleet", models=[model])
    directory.joinpath(MODELS_FILE).write_text(to_json(models))
    settings = BatchingSettings(generation=generation, batching=Batching(**batching))  # type: ignore[arg-type]  # ints
    directory.joinpath(BATCHING_FILE).write_text(to_json(settings))


def tuning(served: Served, directory: Path) -> Tuning:
    return Tuning(served.engine, directory)


@pytest.mark.requirement("B20")
def test_a_changed_file_is_taken_up_and_a_wrong_one_is_not(tmp_path: Path) -> None:
    """Half a file, a wrong value, no file: the old values stay, each error is counted once; then a good one is used."""

    async def main() -> None:
        async with serving() as served:
            write(tmp_path, 1, max_batch_size=8)
            made = tuning(served, tmp_path)
            write(tmp_path, 2, max_batch_size=16)
            made.look()
            assert (served.engine.settings.generation, served.engine.settings.batching.max_batch_size) == (2, 16)
            for wrong in ('{"generation": 3, "batch', '{"batching": {"maxBatchSize": 0}}'):
                tmp_path.joinpath(BATCHING_FILE).write_text(wrong)
                made.look()
                made.look()
            tmp_path.joinpath(BATCHING_FILE).unlink()
            made.look()
            assert served.engine.settings.generation == 2
            assert made.state()["rejected_settings_files"] == 2
            write(tmp_path, 4, max_batch_size=4)
            made.look()
            assert served.engine.settings.batching.max_batch_size == 4
            assert (await served.embed(["still", "served"])).status == 200

    run(main())


@pytest.mark.requirement("B19", "B20")
def test_the_control_socket_pauses_sets_and_shows(tmp_path: Path) -> None:
    """Set, unset, pause, resume and stats over the socket; what is wrong changes nothing; only this user may use it."""

    async def main() -> None:
        async with serving() as served:
            write(tmp_path, 1)
            control = ControlSocket(
                served.engine, tuning(served, tmp_path), tmp_path / "s.sock", AskedDrain(StopSignal())
            )
            await control.start()
            assert tmp_path.joinpath("s.sock").stat().st_mode & 0o777 == 0o600
            connector = aiohttp.UnixConnector(str(tmp_path / "s.sock"))
            async with aiohttp.ClientSession("http://local", connector=connector) as session:

                async def post(path: str, value: object) -> tuple[int, dict[str, object]]:
                    async with session.post(path, data=json.dumps(value)) as answer:
                        return answer.status, await answer.json()

                status, state = await post("/set", {"maxBatchSize": 3})
                assert (status, state["overrides"]) == (200, {"maxBatchSize": 3})
                assert served.engine.settings.batching.max_batch_size == 3
                for wrong in ({"maxBatchSize": 0}, {"maxBatchSise": 3}, {}, [1]):
                    status, state = await post("/set", wrong)
                    assert status == 400, wrong
                assert served.engine.settings.batching.max_batch_size == 3
                await post("/unset", {})
                assert served.engine.settings.batching.largest_batch == 256
                status, state = await post("/pause", {"model": "semantic"})
                assert state["paused"] == ["semantic"]
                assert (await post("/pause", {"model": "nope"}))[0] == 404
                assert (await post("/resume", {}))[1]["paused"] == []
            await control.stop()
            assert not tmp_path.joinpath("s.sock").exists()

    run(main())


@pytest.mark.requirement("B20")
def test_an_override_survives_a_new_settings_file(tmp_path: Path) -> None:
    """What was set by hand stays on top of what the file says, until it is taken back; `/state` shows both."""

    async def main() -> None:
        async with serving() as served:
            write(tmp_path, 1)
            made = tuning(served, tmp_path)
            made.override({"maxBatchSize": 5})
            write(tmp_path, 2, max_batch_size=9, max_queued_requests=77)
            made.look()
            in_force = served.engine.settings.batching
            assert (in_force.max_batch_size, in_force.max_queued_requests) == (5, 77)
            assert made.state()["overrides"] == {"maxBatchSize": 5}
            made.clear()
            assert served.engine.settings.batching.max_batch_size == 9

    run(main())
