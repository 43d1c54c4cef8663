"""The synchronous client wherever it may be called from: loops, threads, forks, and under Ctrl-C."""

import asyncio
import gc
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from embedfleet import AsyncService, Service, errors
from tests.support.fake_server import DIMENSIONS, FakeServer, serving, vector, vectors

TEXTS = [f"text {number}" for number in range(600)]


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


@contextmanager
def interrupted_when(event: threading.Event) -> Iterator[None]:
    """Ctrl-C comes to the main thread once `event` is set."""
    import _thread

    def interrupt() -> None:
        event.wait(30)
        _thread.interrupt_main()

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@pytest.mark.parametrize("texts", ["a", ["a", "b"], TEXTS])
def test_an_interrupt_cancels_the_work_and_leaves_the_client_usable(
    fake: FakeServer, service: Service, texts: str | list[str]
) -> None:
    """Ctrl-C is seen while waiting; the server sees the client leave; the next call works."""
    service.models()
    fake.faults = [fake.hang()]
    with interrupted_when(fake.arrived), pytest.raises(KeyboardInterrupt):
        service.embed(texts)
    assert fake.disconnected.wait(30)
    fake.faults.clear()
    assert np.array_equal(service.embed(TEXTS), vectors(TEXTS))


def test_an_interrupt_in_the_callers_own_iterable(fake: FakeServer, service: Service) -> None:
    """Ctrl-C while the caller's generator runs comes out of `embed`, and requests under way end."""
    fake.faults = [fake.hang()]

    def texts() -> Iterator[str]:
        yield from TEXTS[:200]
        assert fake.arrived.wait(30)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        service.embed(texts())
    assert fake.disconnected.wait(30)
    assert service.embed("a").shape == (DIMENSIONS,)


def test_the_callers_iterable_runs_in_its_thread_and_its_errors_come_out(service: Service) -> None:
    """What only the calling thread may touch is touched there; an error in it is raised as it is."""
    threads = set()

    def texts() -> Iterator[str]:
        for text in TEXTS[:300]:
            threads.add(threading.get_ident())
            yield text
        raise ZeroDivisionError("the caller's own")

    with pytest.raises(ZeroDivisionError, match="the caller's own"):
        service.embed(texts())
    assert threads == {threading.get_ident()}
    assert service.embed("a").shape == (DIMENSIONS,)


def test_progress_is_told_in_the_calling_thread(service: Service) -> None:
    """The function gets (done, total) after each answer, from the thread that called, up to all of them."""
    told: list[tuple[int, int | None, int]] = []

    def progress(done: int, total: int | None) -> None:
        told.append((done, total, threading.get_ident()))

    service.embed(TEXTS, progress=progress)
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert told[-1][:2] == (600, 600)
    assert {thread for _, _, thread in told} == {threading.get_ident()}
    service.embed(iter(TEXTS), progress=progress)
    assert told[-1][:2] == (600, None)


def test_a_bar_is_drawn_when_asked_and_not_where_nobody_looks(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    """`progress=True` draws on standard error; by default nothing is drawn where that is no terminal."""
    service.embed(TEXTS)
    service.embed(TEXTS, progress=False)
    assert capsys.readouterr().err == ""
    service.embed(TEXTS, progress=True)
    captured = capsys.readouterr()
    assert "600/600" in captured.err
    assert captured.out == ""


@pytest.mark.requirement("K1")
def test_inside_a_running_loop(service: Service) -> None:
    """The synchronous call works where a loop runs already, as in a notebook's cell."""

    async def cell() -> None:
        assert np.array_equal(service.embed(TEXTS), vectors(TEXTS))

    asyncio.run(cell())


def test_many_threads_share_one_client(service: Service) -> None:
    """Each of 400 calls from 32 threads gets its own vector."""
    with ThreadPoolExecutor(32) as pool:
        rows = list(pool.map(service.embed, TEXTS[:400]))
    assert np.array_equal(np.stack(rows), vectors(TEXTS[:400]))


def test_a_call_within_the_callers_own_iterable(service: Service) -> None:
    """A generator may use the same client while it is read."""

    def texts() -> Iterator[str]:
        for text in ("a", "b"):
            service.embed(text)
            yield text

    assert service.embed(texts()).shape == (2, DIMENSIONS)


def test_closing_ends_calls_of_other_threads(fake: FakeServer, service: Service) -> None:
    """No call hangs because another thread closed the client."""
    fake.faults = [fake.hang()]
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(service.embed, "a")
        assert fake.arrived.wait(30)
        service.close()
        with pytest.raises(errors.EmbedfleetError):
            call.result(30)
    with pytest.raises(errors.ClientClosed):
        service.embed("a")
    service.close()


def test_a_client_that_is_let_go_closes_its_connections(fake: FakeServer) -> None:
    """Nobody needs to call `close`: no warning, no connection left."""
    service = Service(fake.url)
    assert np.array_equal(service.embed("a"), vector("a"))
    del service
    gc.collect()


_FORKED = """
    import os, sys
    import numpy as np
    from embedfleet import Service
    from tests.support.fake_server import vectors

    texts = [f"text {number}" for number in range(300)]
    service = Service(sys.argv[1])
    assert np.array_equal(service.embed(texts), vectors(texts))
    child = os.fork()
    assert np.array_equal(service.embed(texts), vectors(texts))
    if child == 0:
        service.close()
        del service
        sys.exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert np.array_equal(service.embed(texts), vectors(texts))
"""

_LEFT_OPEN = """
    import sys
    import embedfleet
    service = embedfleet.connect(url=sys.argv[1])
    service.embed(["a"])
"""


@pytest.mark.parametrize("script", [_FORKED, _LEFT_OPEN])
def test_forks_and_exits_are_clean(fake: FakeServer, script: str) -> None:
    """A client works in parent and child after a fork; neither that nor leaving it open prints anything at exit."""
    root = Path(__file__).parents[3]
    # From Python 3.12 on, forking with threads is warned of; that it works all the same is what this shows.
    command = [sys.executable, "-X", "dev", "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(script), fake.url]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=120, check=False)
    # asyncio's debug mode tells of each step that took 0.1 s, which on a busy machine any step may.
    said = [line for line in done.stderr.splitlines() if not re.fullmatch(r"Executing <.*> took [\d.]+ seconds", line)]
    assert (done.returncode, done.stdout, said) == (0, "", [])


def test_the_card_shows_how_long_the_last_requests_took(service: Service, fake: FakeServer) -> None:
    """Of the last 60 requests with texts, by whichever call."""
    service.models()
    assert "<svg" not in service._repr_html_()
    for _ in range(70):
        service.embed("a")
    assert "longest of the last 60 requests" in service._repr_html_()

    async def twin() -> str:
        async with AsyncService(fake.url) as client:
            await client.embed("a")
            return client._repr_html_()

    assert "longest of the last request<" in asyncio.run(twin())
