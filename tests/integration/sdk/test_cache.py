"""The cache in use: what is in it is not computed, whoever put it there, and never for another model."""

import asyncio
import multiprocessing
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embedfleet import AsyncService, Cache, Service
from tests.support.fake_server import FakeServer, serving, vectors

TEXTS = [f"text {number}" for number in range(300)]


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    """An honest server."""
    with serving(FakeServer()) as server:
        yield server


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that is not there yet, in a directory that is not there yet."""
    return tmp_path / "deep" / "cache.sqlite"


@pytest.mark.requirement("K3")
def test_what_is_cached_is_not_computed(fake: FakeServer, path: Path) -> None:
    """A second client, of either kind, gets the vectors from the file, and only what is new from the server."""
    with Service(fake.url, cache=path) as service:
        assert np.array_equal(service.embed(TEXTS), vectors(TEXTS))
    fake.requests.clear()
    with Service(fake.url) as service:
        result = service.embed(["new", *TEXTS, "newer"], cache=str(path), with_info=True)
        assert np.array_equal(result.array, vectors(["new", *TEXTS, "newer"]))
        assert result.cached == 300
        assert np.array_equal(service.embed("text 7", cache=path), vectors(["text 7"])[0])
    assert fake.texts == ["new", "newer"]

    async def main() -> None:
        async with AsyncService(fake.url, cache=Cache(path)) as service:
            arrays = [rows async for rows in service.embed_stream(TEXTS)]
            assert np.array_equal(np.concatenate(arrays), vectors(TEXTS))

    asyncio.run(main())
    assert fake.texts == ["new", "newer"]


def test_it_is_off_unless_asked_for(fake: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written by default; True is one file of the user's; False wins over the client's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with Service(fake.url) as service:
        service.embed(TEXTS[:3])
        assert list(tmp_path.iterdir()) == []
        service.embed(TEXTS[:3], cache=True)
        assert (tmp_path / "embedfleet" / "vectors.sqlite").is_file()
        service.cache = True
        fake.requests.clear()
        service.embed(TEXTS[:3])
        assert fake.requests == []
        service.embed(TEXTS[:3], cache=False)
        assert len(fake.requests) == 1


def test_it_is_dead_when_the_model_changes(fake: FakeServer, path: Path) -> None:
    """Another fingerprint, another prompt and another length are other vectors, for a client of before too."""
    with Service(fake.url, cache=path) as service:
        service.embed(TEXTS[:5])
        fake.requests.clear()
        service.embed(TEXTS[:5], input_type="query")
        service.embed(TEXTS[:5], dimensions=4)
        assert len(fake.requests) == 2
        fake.fingerprint = "f2"
        assert service.embed(TEXTS[:5], with_info=True).fingerprint == "f2"
        assert len(fake.requests) == 3


def test_bad_texts_and_cut_ones(fake: FakeServer, path: Path) -> None:
    """A row of NaN is not kept; that a text lost its end is."""
    fake.bad, fake.long = {"bad": "is bad"}, 5
    with Service(fake.url, cache=path) as service:
        for _ in range(2):
            result = service.embed(["bad", "good", "too long"], on_error="collect")
            assert ([one.index for one in result.errors], result.truncated) == ([0], (2,))
    assert fake.texts == ["bad", "good", "too long", "bad"]


def _embed(url: str, path: Path, start: int) -> None:
    with Service(url, cache=path) as service:
        for first in range(start, start + 100, 20):
            texts = TEXTS[first : first + 100]
            assert np.array_equal(service.embed(texts), vectors(texts))


def test_several_processes_share_it(fake: FakeServer, path: Path) -> None:
    """Four processes that read and write the same entries at once all get the right vectors."""
    spawned = multiprocessing.get_context("spawn")
    processes = [spawned.Process(target=_embed, args=(fake.url, path, start)) for start in (0, 20, 50, 100)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert database.execute("SELECT count(*) FROM vectors").fetchone() == (280,)
    database.close()


def test_a_file_that_is_no_cache_costs_a_warning_and_no_vector(fake: FakeServer, path: Path) -> None:
    """Trouble with the cache is told, once, and the call goes on without it."""
    path.parent.mkdir()
    path.write_bytes(b"this is no database, but long enough to look at" * 100)
    with Service(fake.url, cache=path) as service:
        with pytest.warns(UserWarning, match="is left out: file is not a database"):
            rows = service.embed(TEXTS)
        assert np.array_equal(rows, vectors(TEXTS))
        service.embed(TEXTS[:3])
