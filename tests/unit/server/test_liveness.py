"""When a restart would help, and when not."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from embedfleet.api.termination import parse
from embedfleet_server.app import last_words
from embedfleet_server.app.liveness import Pulse, trouble
from embedfleet_server.engine.errors import ModelLoadFailed
from embedfleet_server.engine.protocols import Model
from embedfleet_server.engine.slots import ModelConfig
from embedfleet_server.termination import leave_word
from tests.support import virtual_time
from tests.support.simulation import SimulatedModel, config, engine

pytestmark = pytest.mark.requirement("S5")
WELL = Pulse(is_running=True, is_leaving=False, item_timeout=30.0, oldest_batches={"semantic": 0.1})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"oldest_batches": {"semantic": 0.1, "code": 60.0}}, None),
        ({"oldest_batches": {"semantic": 0.1, "code": 60.1}}, "a batch of model 'code' has been running for 60 s"),
        ({"is_running": False}, "the engine does not run"),
        ({"is_running": False, "is_leaving": True}, None),
        ({"is_leaving": True, "oldest_batches": {"code": 1e6}}, None),
        ({"lost": "illegal address"}, "the device is lost: illegal address"),
        ({"lost": "illegal address", "is_leaving": True}, "the device is lost: illegal address"),
    ],
)
def test_what_only_a_restart_cures(change: dict[str, object], words: str | None) -> None:
    """A lost device, a batch past twice the time that anyone waits, an engine that does not run; never a drain."""
    found = trouble(replace(WELL, **change))  # type: ignore[arg-type]  # fields by name
    assert found is None if words is None else found is not None and words in found


def test_a_required_model_that_fails_leaves_its_cause(tmp_path: Path) -> None:
    """The cause is written while it fails, not for an optional model, and taken back once the model is loaded."""
    word = tmp_path / "termination-log"
    word.touch()
    broken = True

    def load() -> Model:
        if broken:
            raise ModelLoadFailed("semantic", "no such directory")
        return SimulatedModel()

    def never() -> Model:
        raise ModelLoadFailed("code", "of no importance")

    async def main() -> None:
        nonlocal broken
        made = engine(None, ModelConfig("code", never, required=False), ModelConfig("semantic", load))
        await made.start()
        keeping = asyncio.create_task(last_words.keep(made, word))
        await asyncio.sleep(2)
        said = parse(word.read_text())
        assert said is not None
        assert (said.code, said.model, said.message) == ("ModelLoadFailed", "semantic", "no such directory")
        broken = False
        await keeping
        assert word.read_text() == ""
        await made.stop(1)

    virtual_time.run(main())


def test_nothing_is_written_where_all_is_well(tmp_path: Path) -> None:
    """A file that holds the words of an earlier container is left alone."""
    word = tmp_path / "termination-log"
    word.write_text("before")

    async def main() -> None:
        made = engine(None, config("semantic"))
        await made.start()
        await last_words.keep(made, word)
        await made.stop(1)

    virtual_time.run(main())
    assert word.read_text() == "before"


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """Outside Kubernetes nothing appears; an overlong cause is cut to what Kubernetes keeps."""
    leave_word(tmp_path / "none", "DeviceLost", "x")
    assert not (tmp_path / "none").exists()
    (tmp_path / "some").touch()
    leave_word(tmp_path / "some", "DeviceLost", "ü" * 10_000)
    assert len((tmp_path / "some").read_bytes()) <= 4096
    said = parse((tmp_path / "some").read_text())
    assert said is not None
    assert said.code == "DeviceLost"
