"""The client against a server on a real socket: what comes back, in which order, and after which troubles."""

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import embedfleet
from embedfleet import AsyncService, Service, errors
from embedfleet.attempts import Timing
from tests.support.fake_server import (
    DIMENSIONS,
    FakeServer,
    Fault,
    cut,
    error,
    give,
    rows_answer,
    serving,
    slow,
    vector,
    vectors,
)

TEXTS = [f"text {number}" for number in range(1000)]


class Clock:
    """Time that passes only in `sleep`, and what was slept."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    @property
    def timing(self) -> Timing:
        """For a client."""
        return Timing(clock=lambda: self.now, sleep=self.sleep)


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    """An honest server."""
    with serving(FakeServer()) as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    """Virtual time."""
    return Clock()


@pytest.fixture
def service(fake: FakeServer, clock: Clock) -> Iterator[Service]:
    """A client of it that waits in virtual time."""
    with Service(fake.url, timing=clock.timing) as client:
        yield client


@pytest.mark.requirement("K1")
def test_shapes(service: Service) -> None:
    """A str gives (d,), a list (n, d), an empty one (0, d); all float32 and C-contiguous."""
    for given, shape in (("a", (8,)), (["a"], (1, 8)), (["a", "b"], (2, 8)), ([], (0, 8)), (iter(()), (0, 8))):
        rows = service.embed(given)
        assert rows.shape == shape
        assert rows.dtype == np.float32
        assert rows.flags.c_contiguous
    assert np.array_equal(service.embed("a"), vector("a"))


def test_nothing_to_embed_touches_no_queue(service: Service, fake: FakeServer) -> None:
    """The length of the vectors of no text is known from the model's card."""
    assert service.embed([]).shape == (0, DIMENSIONS)
    assert service.embed([], dimensions=4).shape == (0, 4)
    assert fake.requests == []


def test_the_length_of_a_model_not_loaded_yet_is_asked_of_itself(service: Service, fake: FakeServer) -> None:
    """Where no card knows d, one short text tells it."""
    fake.dimensions = None
    assert service.embed([]).shape == (0, DIMENSIONS)
    assert len(fake.requests) == 1


@pytest.mark.requirement("K3")
@pytest.mark.parametrize("kind", [list, tuple, iter, np.array])
def test_rows_keep_the_order_of_the_texts(service: Service, fake: FakeServer, kind: Any) -> None:
    """A thousand texts go in several requests that overtake each other, and come back in their order."""
    fake.faults = [slow(50 - 7 * turn) for turn in range(7)]
    assert np.array_equal(service.embed(kind(TEXTS)), vectors(TEXTS))
    assert len(fake.requests) == 8


def test_requests_are_no_larger_than_the_server_takes(service: Service, fake: FakeServer) -> None:
    """`max_inputs` of `/v1/models` bounds each request, and what is in flight altogether."""
    fake.max_inputs = fake.places = 10
    assert np.array_equal(service.embed(TEXTS[:95]), vectors(TEXTS[:95]))
    assert {len(request["input"]) for request in fake.requests} == {10, 5}
    assert fake.refused == 0


def test_a_request_too_large_for_the_server_is_halved(service: Service, fake: FakeServer) -> None:
    """What could never fit whole is tried in halves, in place."""
    service.models()
    fake.max_inputs = 40  # lowered behind the client's back
    assert np.array_equal(service.embed(TEXTS[:130]), vectors(TEXTS[:130]))
    assert np.array_equal(service.embed(iter(TEXTS[:130])), vectors(TEXTS[:130]))


def test_one_text_too_large_is_named(service: Service, fake: FakeServer) -> None:
    """When nothing is left to halve, the error says which text it is."""
    fake.faults = [give(lambda _: error(413, "input_too_large", "longer than it takes"))] * 2
    with pytest.raises(errors.BadInput) as caught:
        service.embed(["a"])
    assert caught.value.errors == (errors.InputError(0, "input_too_large", "longer than it takes"),)
    assert len(fake.requests) == 1


def test_options_and_the_key_travel(fake: FakeServer) -> None:
    """Model, input type, dimensions and the api_key reach the server; the key is not shown by `repr`."""
    with Service(fake.url, api_key="secret", model="code") as service:
        assert service.embed("a", input_type="query", dimensions=4).shape == (4,)
        service.embed("a", model="semantic")
        assert "secret" not in repr(service)
    assert fake.requests[0] == {"input": ["a"], "model": "code", "input_type": "query", "dimensions": 4}
    assert fake.requests[1]["model"] == "semantic"
    assert fake.headers[0]["Authorization"] == "Bearer secret"
    assert fake.headers[0]["Accept"] == "application/x-npy"


@pytest.mark.parametrize(
    ("fault", "least"),
    [
        (give(lambda _: error(429, "queue_full", "full", milliseconds=1500)), 1.5),
        (give(lambda _: error(503, "shutting_down", "leaving", milliseconds=2500)), 2.5),
        (give(lambda _: error(503, "model_loading", "loading", milliseconds=1500)), 1.5),
        (give(lambda _: error(500, "internal", "failed", accepted=True)), 0.05),
        (cut(), 0.05),
        (cut(after=100), 0.05),
        (cut(after=150), 0.05),
    ],
)
def test_troubles_that_pass_are_waited_out(
    service: Service, fake: FakeServer, clock: Clock, fault: Fault, least: float
) -> None:
    """A refusal is obeyed to the millisecond, a cut connection tried again; the caller sees the vectors only."""
    fake.faults = [fault, fault]
    assert np.array_equal(service.embed(["a", "b"]), vectors(["a", "b"]))
    assert len(clock.slept) == 2
    assert all(seconds >= least for seconds in clock.slept)


def test_a_full_server_gives_all_their_vectors_in_the_end(fake: FakeServer, clock: Clock) -> None:
    """Thousands of single texts at once through the SDK: each gets its own vector, from a server with 5 places."""
    fake.places = 5

    async def main() -> None:
        async with AsyncService(fake.url, timing=clock.timing) as service:
            rows = await asyncio.gather(*(service.embed(text) for text in TEXTS * 3))
        assert np.array_equal(np.stack(rows), vectors(TEXTS * 3))

    asyncio.run(main())
    assert fake.refused > 0
    assert fake.highest <= 5


def test_patience_ends(service: Service, fake: FakeServer, clock: Clock) -> None:
    """A server that refuses for ever is given up on with its own reason, not before its kind's patience."""
    fake.faults = [give(lambda _: error(429, "queue_full", "the queue is full", milliseconds=60_000))] * 99
    with pytest.raises(errors.Refused, match="the queue is full") as caught:
        service.embed("a")
    assert caught.value.code == "queue_full"
    assert caught.value.retry_after == 60
    assert 300 <= clock.now < 400


def test_a_server_that_is_gone_is_said_to_be(fake: FakeServer, clock: Clock) -> None:
    """The error names the address, the attempts and the cause, which is chained."""
    service = Service("http://127.0.0.1:9", timing=clock.timing)
    with pytest.raises(errors.ServiceUnavailable, match=r"no answer from http://127.0.0.1:9 in \d+ attempts") as caught:
        service.embed("a")
    assert isinstance(caught.value.__cause__, OSError)
    service.close()


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan")])
def test_a_timeout_that_is_none_is_refused(fake: FakeServer, seconds: float) -> None:
    """It must be more than nothing; no request is made."""
    with Service(fake.url) as service, pytest.raises(errors.BadInput, match="it must be more than 0 seconds"):
        service.embed("a", timeout=seconds)
    assert not fake.requests


def test_the_calls_own_timeout(fake: FakeServer) -> None:
    """`timeout` bounds the whole call; the client is usable afterwards."""
    fake.faults = [fake.hang()]
    with Service(fake.url) as service:
        with pytest.raises(errors.TimedOut, match=r"within 0\.05 s"):
            service.embed("a", timeout=0.05)
        assert fake.disconnected.wait(30)
        assert np.array_equal(service.embed("a"), vector("a"))


def html(_: list[str]) -> Any:
    """What a web server says."""
    from aiohttp import web

    return web.Response(text="<html><title>Welcome to nginx</title></html>", content_type="text/html")


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        (give(html), errors.ProtocolError, "text/html, '<html><title>Welcome"),
        (give(lambda texts: rows_answer(vectors(texts)[:-1])), errors.ProtocolError, "1 rows for 2 texts"),
        (give(lambda texts: rows_answer(vectors(texts) * np.nan)), errors.ProtocolError, "not finite"),
        (give(lambda texts: rows_answer(vectors(texts).astype("f8"))), errors.ProtocolError, "float64"),
        (give(lambda _: error(404, "model_not_found", "has: a, b")), errors.ModelNotFound, "has: a, b"),
        (give(lambda _: error(400, "invalid_request", "dimensions")), errors.RequestRejected, "dimensions"),
        (give(lambda _: error(503, "model_failed", "no weights", milliseconds=1)), errors.Refused, "no weights"),
    ],
)
def test_troubles_that_do_not_pass_are_told_at_once(
    service: Service, fake: FakeServer, clock: Clock, fault: Fault, kind: type[Exception], says: str
) -> None:
    """Wrong answers and final refusals are errors after one attempt, and never rows."""
    fake.faults = [fault]
    with pytest.raises(kind, match=says):
        service.embed(["a", "b"])
    assert clock.slept == []
    assert service.embed(["a"]).shape == (1, DIMENSIONS)


def test_a_server_that_keeps_failing_is_given_up_on(service: Service, fake: FakeServer) -> None:
    """Accepted work that failed is tried three times."""
    fake.faults = [give(lambda _: error(500, "internal", "broken", accepted=True))] * 9
    with pytest.raises(errors.ServerFailed, match="broken"):
        service.embed("a")
    assert len(fake.requests) == 3


def test_bad_texts_are_named_by_their_place_in_the_call(service: Service, fake: FakeServer) -> None:
    """The server counts within its request; the error counts within the call."""

    def bad(texts: list[str]) -> Any:
        where = texts.index("text 200")
        return error(422, "invalid_input", "m", errors=[{"index": where, "code": "c", "message": "is bad"}])

    async def fault(request: Any, texts: list[str]) -> Any:
        return bad(texts) if "text 200" in texts else None

    fake.faults = [fault] * 8
    with pytest.raises(errors.BadInput, match=r"texts\[200\]: is bad"):
        service.embed(TEXTS)


def test_a_model_that_changes_within_a_call_is_noticed(service: Service, fake: FakeServer) -> None:
    """Vectors of two fingerprints are not mixed in one array."""
    fake.faults = [give(lambda texts: rows_answer(vectors(texts), "f2"))]
    with pytest.raises(errors.ProtocolError, match="the model changed"):
        service.embed(TEXTS)


def test_a_redirect_is_told_and_not_followed(service: Service, fake: FakeServer) -> None:
    """A POST that silently becomes a GET elsewhere helps nobody."""
    from aiohttp import web

    fake.faults = [give(lambda _: web.Response(status=302, headers={"Location": "https://login.example/"}))]
    with pytest.raises(errors.ProtocolError, match=r"redirect to https://login\.example/"):
        service.embed("a")


def test_the_stream_gives_arrays_in_order(service: Service, fake: FakeServer) -> None:
    """The arrays together are the rows of `embed`, though later requests may be answered first."""
    fake.faults = [slow(50), slow(20)]
    arrays = list(service.embed_stream(iter(TEXTS)))
    assert len(arrays) == 8
    assert np.array_equal(np.concatenate(arrays), vectors(TEXTS))
    assert list(service.embed_stream([])) == []


def test_the_stream_reads_no_further_than_needed(service: Service) -> None:
    """Memory is bounded: of endless texts only some requests' worth is read for the first array."""
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield str(read)

    arrays = iter(service.embed_stream(endless()))
    assert next(arrays).shape == (128, DIMENSIONS)
    assert read < 128 * 20
    arrays.close()  # type: ignore[attr-defined]  # a generator
    assert service.embed("a").shape == (DIMENSIONS,)


def test_the_stream_tells_of_trouble_in_its_turn(service: Service, fake: FakeServer) -> None:
    """Arrays before a bad text come out; then the error, with its place in the call."""
    arrays = service.embed_stream([*TEXTS[:200], None])  # type: ignore[list-item]  # that is the mistake
    with pytest.raises(errors.BadInput, match=r"texts\[200\]: is None"):
        list(arrays)


def test_the_async_twin(fake: FakeServer) -> None:
    """`connect_async` and `await embed` give what the synchronous ones give."""

    async def main() -> None:
        async with await embedfleet.connect_async("code", url=fake.url) as service:
            assert np.array_equal(await service.embed(TEXTS), vectors(TEXTS))
            assert (await service.embed("a")).shape == (DIMENSIONS,)
            assert [rows.shape async for rows in service.embed_stream(TEXTS[:130])] == [(128, 8), (2, 8)]
            assert [card.name for card in await service.models()] == ["semantic", "code"]
            assert "'semantic' at http" in repr(service)
        with pytest.raises(errors.ClientClosed):
            await service.embed("a")

    asyncio.run(main())
    assert fake.requests[0]["model"] == "code"


def test_an_async_client_belongs_to_one_loop(fake: FakeServer) -> None:
    """A second loop gets an error that says what to do, not a hang."""
    service = AsyncService(fake.url)

    async def use() -> None:
        await service.embed("a")

    async def close_at_home() -> None:
        await service.embed("a")
        with pytest.raises(errors.ClientClosed, match="connect again"):
            await asyncio.to_thread(lambda: asyncio.run(use()))
        await service.close()

    asyncio.run(close_at_home())


def test_bodies_are_what_the_wire_says(fake: FakeServer, service: Service) -> None:
    """Every character survives the way there."""
    texts = ["ä", "漢字", "\x00", "\u2028", "🙂", "a" * 10_000, "\\ud800"]
    assert np.array_equal(service.embed(texts), vectors(texts))
    assert fake.texts == texts
