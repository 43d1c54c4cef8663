"""A server that takes a request and is not heard of again: how long it is waited for, and where the request goes then.

The sockets are real; client and server share a loop on a virtual clock, so that minutes of silence take no time.
"""

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
from aiohttp import web

from embedfleet import AsyncService, errors
from embedfleet.attempts import Timing
from embedfleet.transport import MARGIN_SECONDS, SILENCE_SECONDS
from tests.support.fake_server import FakeServer, Fault, serving_here, vectors
from tests.support.virtual_time import run_with_sockets

TEXTS = ["a", "b"]


class Story:
    """What a server that shares the client's clock saw, and how it answers."""

    def __init__(self, fake: FakeServer) -> None:
        self.fake = fake
        self.waited: list[float] = []
        """Seconds from a request to the client's leaving it."""
        self.callers: list[object] = []
        """The other end of each request's connection."""

    def silent(self) -> Fault:
        """No answer until the client leaves."""
        return self.late(None)

    def late(self, seconds: float | None) -> Fault:
        """The honest answer after so long; None: never."""

        async def fault(request: web.Request, texts: list[str]) -> web.StreamResponse | None:
            assert request.transport is not None
            self.callers.append(request.transport.get_extra_info("peername"))
            began = _now()
            try:
                await (asyncio.sleep(seconds) if seconds is not None else asyncio.get_running_loop().create_future())
            except asyncio.CancelledError:
                self.waited.append(_now() - began)
                raise
            return None

        return fault


def _now() -> float:
    return asyncio.get_running_loop().time()


def play(fake: FakeServer, scene: Callable[[AsyncService, Story], Awaitable[None]]) -> Story:
    """A client of `fake` that goes by the virtual clock, as `scene` uses it."""
    story = Story(fake)

    async def main() -> None:
        async with serving_here(fake):
            timing = Timing(clock=_now)
            async with AsyncService(fake.url, timing=timing) as service:
                await scene(service, story)

    run_with_sockets(main())
    return story


@pytest.mark.requirement("K3")
@pytest.mark.parametrize("told", [7, 120])
def test_silence_ends_with_what_the_server_gives_itself(told: float) -> None:
    """After the item timeout that the server states, and the margin, the request goes out anew and is answered."""

    async def scene(service: AsyncService, story: Story) -> None:
        await service.models()
        story.fake.faults = [story.silent()]
        assert np.array_equal(await service.embed(TEXTS), vectors(TEXTS))

    story = play(FakeServer(item_timeout_seconds=told), scene)
    assert story.waited == [pytest.approx(told + MARGIN_SECONDS)]


@pytest.mark.requirement("K3")
def test_one_text_is_tried_again_too() -> None:
    """A call of one text by a client that has had no vector yet is as patient: its silence used no patience up."""

    async def scene(service: AsyncService, story: Story) -> None:
        await service.models()
        story.fake.faults = [story.silent(), story.silent()]
        assert np.array_equal(await service.embed("a"), vectors(["a"])[0])

    story = play(FakeServer(item_timeout_seconds=300), scene)
    assert story.waited == [pytest.approx(300 + MARGIN_SECONDS)] * 2


def test_a_server_that_says_nothing_of_its_limit() -> None:
    """An older server is waited for five minutes."""

    async def scene(service: AsyncService, story: Story) -> None:
        story.fake.faults = [story.silent()]
        assert np.array_equal(await service.embed(TEXTS), vectors(TEXTS))

    assert play(FakeServer(item_timeout_seconds=None), scene).waited == [pytest.approx(SILENCE_SECONDS)]


@pytest.mark.requirement("K3")
def test_a_slow_server_is_waited_for() -> None:
    """An answer that takes as long as the server says it may is no silence: one request, and no other."""

    async def scene(service: AsyncService, story: Story) -> None:
        story.fake.faults = [story.late(300)]
        assert np.array_equal(await service.embed(TEXTS), vectors(TEXTS))

    story = play(FakeServer(item_timeout_seconds=300), scene)
    assert story.waited == []
    assert len(story.fake.requests) == 1


def test_a_limit_that_is_raised_meanwhile() -> None:
    """The look at the server before another attempt learns its limit anew."""

    async def scene(service: AsyncService, story: Story) -> None:
        await service.models()
        story.fake.item_timeout_seconds = 600
        story.fake.faults = [story.late(500), story.late(500)]
        assert np.array_equal(await service.embed(TEXTS), vectors(TEXTS))

    story = play(FakeServer(item_timeout_seconds=5), scene)
    assert story.waited == [pytest.approx(5 + MARGIN_SECONDS)]


@pytest.mark.requirement("K3")
def test_the_next_attempt_goes_by_a_new_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that lay idle when a server fell silent may lead to the same dead pod: none of them is used again."""

    # aiohttp ages what is idle by a clock of its own
    monkeypatch.setattr("aiohttp.connector.monotonic", _now)

    async def scene(service: AsyncService, story: Story) -> None:
        await service.models()
        story.fake.faults = [story.late(1) for _ in range(4)]
        await asyncio.gather(*(service.embed(f"{number}") for number in range(4)))  # as many connections, idle now
        story.fake.faults = [story.silent(), story.late(0)]
        assert np.array_equal(await service.embed(TEXTS), vectors(TEXTS))

    story = play(FakeServer(item_timeout_seconds=1), scene)
    *before, silent, again = story.callers
    assert len(set(before)) == 4
    assert silent in before
    assert again not in before


@pytest.mark.requirement("K3")
def test_a_service_that_stays_silent_is_given_up() -> None:
    """Three attempts of one text are lost, and the error says of what they died."""

    async def scene(service: AsyncService, story: Story) -> None:
        await service.models()
        story.fake.faults = [story.silent() for _ in range(3)]
        with pytest.raises(errors.ServiceUnavailable, match=r"in 3 attempts: it was silent for 45 s"):
            await service.embed("a")

    assert len(play(FakeServer(), scene).waited) == 3


def test_the_callers_own_limit_comes_first() -> None:
    """A call with a `timeout` ends at it, however long the server may take."""

    async def scene(service: AsyncService, story: Story) -> None:
        await service.models()
        story.fake.faults = [story.silent()]
        with pytest.raises(errors.TimedOut):
            await service.embed(TEXTS, timeout=20)

    assert play(FakeServer(), scene).waited == [pytest.approx(20)]


def test_a_list_of_models_that_never_comes() -> None:
    """What a server answers at once is not waited for without end: three attempts, and an error."""

    async def scene(service: AsyncService, story: Story) -> None:
        story.fake.mute = True
        with pytest.raises(errors.ServiceUnavailable, match="it was silent for 15 s"):
            await service.models()

    play(FakeServer(), scene)
