"""Vectors on disk: written in shards, resumed after whatever stopped the run, refused where they would not fit."""

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embedfleet
from embedfleet import AsyncService, Service, errors
from tests.support import resuming
from tests.support.fake_server import DIMENSIONS, FakeServer, cut, serving, vectors

TEXTS = [f"text {number}" for number in range(1000)]


class Stopped(Exception):
    """What stops a run, in place of a kernel's restart."""


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    """An honest server."""
    with serving(FakeServer()) as server:
        yield server


@pytest.fixture
def service(fake: FakeServer) -> Iterator[Service]:
    """A client of it."""
    with Service(fake.url) as client:
        yield client


def until(texts: list[str], stop: int) -> Iterator[str]:
    """`texts`, but the one at `stop` never comes."""
    yield from texts[:stop]
    raise Stopped


def begun(service: Service, path: Path, **more: Any) -> None:
    """A run of TEXTS that was stopped after two shards of 200."""
    with pytest.raises(Stopped):
        service.embed_to(path, until(TEXTS, 700), shard_rows=200, **more)
    assert 200 <= len(embedfleet.load(path, allow_partial=True)) <= 600


@pytest.mark.requirement("K3")
@pytest.mark.parametrize("kind", ["npy", "arrow", "parquet"])
def test_what_was_stopped_goes_on(service: Service, fake: FakeServer, tmp_path: Path, kind: Any) -> None:
    """In each format the second call computes only what is not whole yet, and `load` gives every vector in order."""
    begun(service, tmp_path, format=kind)
    kept = len(embedfleet.load(tmp_path, allow_partial=True))
    fake.requests.clear()
    told: list[tuple[int, int | None]] = []
    written = service.embed_to(
        tmp_path, TEXTS, shard_rows=200, format=kind, progress=lambda done, total: told.append((done, total))
    )
    assert (written.rows, written.resumed, written.dimensions, written.fingerprint) == (1000, kept, DIMENSIONS, "f1")
    assert fake.texts[0] == f"text {kept}"
    assert (told[0], told[-1]) == ((kept, 1000), (1000, 1000))
    rows = embedfleet.load(tmp_path)
    assert np.array_equal(rows, vectors(TEXTS))
    assert rows.dtype == np.float32
    fake.requests.clear()
    assert service.embed_to(tmp_path, TEXTS, shard_rows=200, format=kind).resumed == 1000
    assert fake.requests == []


def test_one_shard_is_mapped_and_none_is_empty(service: Service, tmp_path: Path) -> None:
    """A single npy file is not read into memory; a run of no texts leaves an array of no rows."""
    service.embed_to(tmp_path / "one", TEXTS)
    rows = embedfleet.load(tmp_path / "one")
    assert isinstance(rows, np.memmap)
    assert np.array_equal(rows, vectors(TEXTS))
    service.embed_to(tmp_path / "none", [])
    assert embedfleet.load(tmp_path / "none").shape == (0, DIMENSIONS)


@pytest.mark.requirement("K3")
def test_killed_at_random_moments_the_result_is_the_same_to_the_byte(fake: FakeServer, tmp_path: Path) -> None:
    """20 kills between any two writes (`make soak`: 200): in the end the array equals an uninterrupted run's."""
    told = resuming.run(fake.url, tmp_path, kills=int(os.environ.get("EMBEDFLEET_KILLS", "20")), seed=3)
    assert told.killed >= 20
    assert told.right == told.whole


def test_an_interrupt_leaves_a_run_to_go_on_with(service: Service, tmp_path: Path) -> None:
    """Ctrl-C in the middle, here from progress: whole shards stay, no draft does, the client is usable."""

    def interrupt(done: int, _: int | None) -> None:
        if done > 500:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        service.embed_to(tmp_path, TEXTS, shard_rows=200, progress=interrupt)
    assert len(embedfleet.load(tmp_path, allow_partial=True)) == 400
    assert list(tmp_path.glob("*.part")) == []
    service.embed_to(tmp_path, TEXTS, shard_rows=200)
    assert np.array_equal(embedfleet.load(tmp_path), vectors(TEXTS))


@pytest.mark.requirement("K3")
def test_another_model_is_refused(service: Service, fake: FakeServer, tmp_path: Path) -> None:
    """Vectors of two fingerprints are never mixed, whether the change shows before the run or only in its answers."""
    begun(service, tmp_path)
    before = sorted((file.name, file.read_bytes()) for file in tmp_path.iterdir())
    fake.requests.clear()
    fake.fingerprint = "f2"
    with pytest.raises(errors.ResumeRefused, match="fingerprint f1; the model's is f2"):
        service.embed_to(tmp_path, TEXTS, shard_rows=200)
    assert fake.requests == []
    fake.fingerprint = "f1"

    async def change(request: Any, texts: list[str]) -> None:
        fake.fingerprint = "f2"

    fake.faults = [change]
    with pytest.raises(errors.ResumeRefused, match="of another model"):
        service.embed_to(tmp_path, TEXTS, shard_rows=200)
    assert sorted((file.name, file.read_bytes()) for file in tmp_path.iterdir()) == before


def test_another_precision_is_warned_of(service: Service, fake: FakeServer, tmp_path: Path) -> None:
    """Vectors of another precision can be compared, and are not equal: the run goes on, and says so."""
    begun(service, tmp_path)
    fake.precision = "bfloat16"
    with pytest.warns(UserWarning, match="made in float32; those to come are made in bfloat16") as caught:
        service.embed_to(tmp_path, TEXTS, shard_rows=200)
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["other", *TEXTS[1:]], r"texts\[0\] to texts\[199\] are not those"),
        (TEXTS[:150], r"texts\[0\] to texts\[199\] ended before"),
        ([TEXTS[0] + TEXTS[1], *TEXTS[2:], "x"], r"are not those"),
    ],
)
def test_other_texts_are_refused(service: Service, tmp_path: Path, texts: list[str], says: str) -> None:
    """The texts of the whole shards are read again and compared."""
    begun(service, tmp_path)
    with pytest.raises(errors.ResumeRefused, match=says):
        service.embed_to(tmp_path, texts, shard_rows=200)


def test_more_texts_than_a_complete_run_had_are_refused(service: Service, tmp_path: Path) -> None:
    """What is complete stays as it is."""
    service.embed_to(tmp_path, TEXTS[:300], shard_rows=200)
    with pytest.raises(errors.ResumeRefused, match="complete with 300 texts, and there are more"):
        service.embed_to(tmp_path, TEXTS, shard_rows=200)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"shard_rows": 100}, "shard_rows=200; it cannot go on with shard_rows=100"),
        ({"format": "arrow"}, "format='npy'"),
        ({"input_type": "query"}, "input_type=None"),
        ({"dimensions": 4}, "dimensions=None; it cannot go on with dimensions=4"),
    ],
)
def test_other_options_are_refused(service: Service, tmp_path: Path, more: dict[str, Any], says: str) -> None:
    """A run goes on as it was begun."""
    begun(service, tmp_path)
    with pytest.raises(errors.ResumeRefused, match=says):
        service.embed_to(tmp_path, TEXTS, **{"shard_rows": 200, **more})


def test_damage_is_noticed(service: Service, tmp_path: Path) -> None:
    """A shard that is missing or shorter, a manifest of something else, a file in the directory's place."""
    service.embed_to(tmp_path, TEXTS, shard_rows=200)
    shard = tmp_path / "shard-00001.npy"
    shard.write_bytes(shard.read_bytes()[:-1])
    for use in (lambda: embedfleet.load(tmp_path), lambda: service.embed_to(tmp_path, TEXTS, shard_rows=200)):
        with pytest.raises(errors.ResumeRefused, match=r"shard-00001\.npy is missing or was changed"):
            use()
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(errors.ResumeRefused, match="was not written by embed_to"):
        embedfleet.load(tmp_path)
    with pytest.raises(errors.BadInput, match="holds no vectors"):
        embedfleet.load(tmp_path / "nowhere")
    with pytest.raises(errors.BadInput, match="it must be a directory"):
        service.embed_to(shard, TEXTS)
    with pytest.raises(errors.BadInput, match="shard_rows is 0"):
        service.embed_to(tmp_path / "new", TEXTS, shard_rows=0)
    with pytest.raises(errors.BadInput, match="format is 'csv'"):
        service.embed_to(tmp_path / "new", TEXTS, format="csv")  # type: ignore[arg-type]  # that is the mistake


def test_a_run_that_has_not_ended_is_not_loaded_by_mistake(service: Service, tmp_path: Path) -> None:
    """The error says how much there is and what to do."""
    begun(service, tmp_path)
    with pytest.raises(errors.BadInput, match=r"is not complete: it has \d00 rows"):
        embedfleet.load(tmp_path)


def test_two_runs_do_not_write_to_one_directory(service: Service, tmp_path: Path) -> None:
    """The second is refused while the first goes on."""

    def texts() -> Iterator[str]:
        with pytest.raises(errors.ResumeRefused, match="another process is writing"):
            service.embed_to(tmp_path, TEXTS)
        yield from TEXTS

    service.embed_to(tmp_path, texts())
    assert np.array_equal(embedfleet.load(tmp_path), vectors(TEXTS))


def test_bad_texts_are_noted_in_the_manifest(service: Service, fake: FakeServer, tmp_path: Path) -> None:
    """With "collect" the manifest lists them for good; a run that was stopped and goes on has all of them."""
    fake.bad = {"text 50": "is bad", "text 900": "is worse"}
    begun(service, tmp_path, on_error="collect")
    written = service.embed_to(tmp_path, TEXTS, shard_rows=200, on_error="collect")
    assert [(one.index, one.message, one.text) for one in written.errors] == [
        (50, "is bad", "text 50"), (900, "is worse", "text 900"),
    ]  # fmt: skip
    rows = embedfleet.load(tmp_path)
    assert np.flatnonzero(np.isnan(rows).any(axis=1)).tolist() == [50, 900]
    shards = json.loads((tmp_path / "manifest.json").read_text())["shards"]
    assert [len(shard["errors"]) for shard in shards] == [1, 0, 0, 0, 1]
    with pytest.raises(errors.BadInput, match=r"texts\[50\]: is bad"):
        service.embed_to(tmp_path / "raise", TEXTS, shard_rows=200)
    begun(service, tmp_path / "nan", on_error="nan")
    with pytest.raises(errors.BadInput, match=r"texts\[900\]: is worse"):
        service.embed_to(tmp_path / "nan", TEXTS, shard_rows=200)


_FULL = """
    import resource, signal, sys
    from embedfleet import Service
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
    texts = [f"text {number}" for number in range(300)]
    with Service(sys.argv[1]) as service:
        service.embed_to(sys.argv[2], texts, shard_rows=100)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        try:
            service.embed_to(sys.argv[3], texts, shard_rows=20)
        except OSError as error:
            print(error.__notes__[0])
"""


def test_a_full_disk_leaves_what_is_whole(service: Service, fake: FakeServer, tmp_path: Path) -> None:
    """A write that the system refuses (here by a limit on the file's size) ends the run; what was whole stays valid."""
    assert resource.RLIM_INFINITY
    root = Path(__file__).parents[3]
    code, whole, part = textwrap.dedent(_FULL), tmp_path / "whole", tmp_path / "part"
    command = [sys.executable, "-c", code, fake.url, str(whole), str(part)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    texts = TEXTS[:300]
    assert np.array_equal(embedfleet.load(whole), vectors(texts))
    rows = embedfleet.load(part, allow_partial=True)
    assert 0 < len(rows) < 300
    assert done.stdout.startswith(f"{len(rows)} rows are whole on the disk")
    assert np.array_equal(rows, vectors(texts[: len(rows)]))
    assert list(part.glob("*.part")) == []
    service.embed_to(part, texts, shard_rows=20)
    assert np.array_equal(embedfleet.load(part), vectors(texts))


def test_the_async_twin(fake: FakeServer, tmp_path: Path) -> None:
    """`await embed_to` writes, resumes and refuses as the synchronous one does, whichever of them began."""

    async def main() -> None:
        async with AsyncService(fake.url) as service:
            with pytest.raises(Stopped):
                await service.embed_to(tmp_path, until(TEXTS, 700), shard_rows=200)
            written = await service.embed_to(tmp_path, TEXTS, shard_rows=200)
            assert written.rows == 1000
            assert written.resumed > 0
            with pytest.raises(errors.ResumeRefused):
                await service.embed_to(tmp_path, TEXTS[:10], shard_rows=200)

    asyncio.run(main())
    assert np.array_equal(embedfleet.load(tmp_path), vectors(TEXTS))
    fake.faults = [cut()] * 2
    with Service(fake.url) as service:
        assert service.embed_to(tmp_path, TEXTS, shard_rows=200).rows == 1000
