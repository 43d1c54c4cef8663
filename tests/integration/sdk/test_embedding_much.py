"""Many texts in a world that is not kind: bad ones among them, repeated ones, outages, cut connections, deadlines."""

import asyncio
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from embedfleet import AsyncService, EmbedResult, Service, errors
from embedfleet.attempts import Timing
from tests.support.fake_server import DIMENSIONS, FakeServer, cut, error, give, rows_answer, serving, vectors

TEXTS = [f"text {number}" for number in range(1000)]
BAD = {"text 200": "is bad", "text 700": "is worse"}


class Clock:
    """Time that passes only in `sleep`; `events` are due at their moment."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events: list[tuple[float, Callable[[], None]]] = []

    async def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.now += seconds
        for event in [event for event in self.events if event[0] <= self.now]:
            self.events.remove(event)
            await asyncio.to_thread(event[1])
        await asyncio.sleep(0)

    @property
    def timing(self) -> Timing:
        """For a client."""
        return Timing(clock=lambda: self.now, sleep=self.sleep, rng=random.Random(1))


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


def with_holes(texts: list[str], bad: list[int]) -> Any:
    """The vectors of `texts`, NaN at the places of `bad`."""
    rows = vectors(texts)
    rows[bad] = np.nan
    return rows


@pytest.mark.requirement("K3")
@pytest.mark.parametrize("kind", [list, iter])
def test_a_bad_text_does_not_cost_the_others(service: Service, fake: FakeServer, kind: Any) -> None:
    """With "nan" and "collect" every other text has its vector, after one request each, and the bad are NaN."""
    fake.bad = BAD
    expected = with_holes(TEXTS, [200, 700])
    assert np.array_equal(service.embed(kind(TEXTS), on_error="nan"), expected, equal_nan=True)
    assert len(fake.requests) == 8
    result = service.embed(kind(TEXTS), on_error="collect")
    assert np.array_equal(result.array, expected, equal_nan=True)
    assert [(one.index, one.code, one.message, one.text) for one in result.errors] == [
        (200, "bad_text", "is bad", "text 200"),
        (700, "bad_text", "is worse", "text 700"),
    ]
    arrays = list(service.embed_stream(kind(TEXTS), on_error="nan"))
    assert np.array_equal(np.concatenate(arrays), expected, equal_nan=True)


def test_raise_names_place_text_and_cause(service: Service, fake: FakeServer) -> None:
    """The error tells which text, how it begins, and what is wrong; a long one is shortened."""
    long = "x" * 500
    fake.bad = {long: "is far too dull"}
    with pytest.raises(errors.BadInput) as caught:
        service.embed([*TEXTS[:300], long])
    assert str(caught.value) == f"texts[300]: is far too dull (the text: '{'x' * 59}…')"
    assert caught.value.indexes == [300]


@pytest.mark.parametrize("kind", [list, iter])
def test_what_is_no_text_is_a_row_of_nan_where_that_is_wanted(service: Service, fake: FakeServer, kind: Any) -> None:
    """None, bytes, numbers, nested lists and lone surrogates among texts cost no other text its vector."""
    odd: list[Any] = ["a", None, b"b", 1.5, ["c"], "\ud800", "d"]
    result = service.embed(kind(odd), on_error="collect")
    assert np.array_equal(result.array[[0, 6]], vectors(["a", "d"]))
    assert np.isnan(result.array[1:6]).all()
    assert [one.index for one in result.errors] == [1, 2, 3, 4, 5]
    assert fake.texts == ["a", "d"]
    with pytest.raises(errors.BadInput, match=r"texts\[1\]: is None"):
        service.embed(kind(odd))


def test_nothing_but_bad_texts(service: Service, fake: FakeServer) -> None:
    """The rows have the model's length though no vector came."""
    fake.bad = {"a": "bad", "b": "bad"}
    assert service.embed(["a", "b"], on_error="nan").shape == (2, DIMENSIONS)
    nothing: list[Any] = [None, None]
    assert service.embed(nothing, on_error="nan").shape == (2, DIMENSIONS)
    assert np.isnan(service.embed("a", on_error="nan")).all()


def test_an_older_server_that_refuses_the_whole_request(service: Service, fake: FakeServer) -> None:
    """Where the server refuses a request for its bad texts, the others are asked again without them."""

    async def refuse(request: web.Request, texts: list[str]) -> web.StreamResponse | None:
        wrong = [{"index": i, "code": "c", "message": "is bad"} for i, text in enumerate(texts) if text in BAD]
        return error(422, "invalid_input", "m", errors=wrong) if wrong else None

    fake.faults = [refuse] * 20
    rows = service.embed(TEXTS, on_error="nan")
    assert np.array_equal(rows, with_holes(TEXTS, [200, 700]), equal_nan=True)


def test_bad_texts_that_the_header_has_no_room_for(service: Service, fake: FakeServer) -> None:
    """More bad texts than a header can name are still bad texts, and not a broken answer."""

    def some(texts: list[str]) -> web.StreamResponse:
        answer = rows_answer(with_holes(texts, [0, 2]))
        answer.headers["X-Embedfleet-Errors"] = '[{"index": 0, "code": "c", "message": "m"}]'
        answer.headers["X-Embedfleet-Errors-Omitted"] = "1"
        return answer

    fake.faults = [give(some)]
    result = service.embed(["a", "b", "c"], on_error="collect")
    assert [(one.index, one.code) for one in result.errors] == [(0, "c"), (2, "not_told")]


def test_repeated_texts_are_computed_once(service: Service, fake: FakeServer) -> None:
    """Within the window each text is sent once, whichever way the vectors are asked for; every row is there."""
    texts = [f"text {number % 500}" for number in range(5000)]
    expected = vectors(texts)
    for given in (texts, iter(texts)):
        fake.requests.clear()
        result = service.embed(given, with_info=True)
        assert np.array_equal(result.array, expected)
        assert sorted(fake.texts) == sorted(set(texts))
        assert result.repeated == 4500
    fake.requests.clear()
    assert np.array_equal(np.concatenate(list(service.embed_stream(texts))), expected)
    assert len(fake.texts) == 500


def test_copies_of_a_bad_text_are_bad(service: Service, fake: FakeServer) -> None:
    """What is found of a text holds wherever it stands; so it is with those that lost their end."""
    fake.bad, fake.long = {"bad": "is bad"}, 5
    texts = ["bad", "fine", "too long", "bad", *map(str, range(300)), "too long", "bad"]
    result = service.embed(texts, on_error="collect")
    assert [one.index for one in result.errors] == [0, 3, 305]
    assert result.truncated == (2, 304)
    assert np.isnan(result.array[[0, 3, 305]]).all()


def test_the_caller_may_change_what_the_stream_gave(service: Service) -> None:
    """Later copies come from memory of our own."""
    texts = [*TEXTS[:128], *TEXTS[:128]]
    made = []
    for rows in service.embed_stream(texts):
        made.append(rows.copy())
        rows[:] = 0
    assert np.array_equal(np.concatenate(made), vectors(texts))


@pytest.mark.requirement("K3")
def test_the_result_tells_its_story(service: Service, fake: FakeServer) -> None:
    """Tokens, times, retries, fingerprint, precision and truncated texts stand beside the array."""
    fake.faults = [cut(), give(lambda _: error(500, "internal", "x", accepted=True))]
    texts = [*TEXTS[:299], "long " * 20_000]
    result = service.embed(texts, with_info=True)
    assert isinstance(result, EmbedResult)
    assert np.array_equal(result.array, vectors(texts))
    assert result.tokens == 299 * 2 + 20_000
    assert (result.requests, result.retries) == (3, 2)
    assert result.queue_seconds == pytest.approx(0.0015 * 3)
    assert result.compute_seconds == pytest.approx(0.0025 * 3)
    assert (result.model, result.fingerprint, result.precisions) == ("semantic", "f1", ("float32",))
    assert result.pods == ()
    assert result.truncated == (299,)
    assert result.errors == ()
    assert len(result.latencies) == 3
    assert result.texts is texts
    assert "3 requests, 2 retries" in repr(result)
    assert service.embed("one", with_info=True).array.shape == (DIMENSIONS,)


def test_the_result_names_the_pods(service: Service, fake: FakeServer) -> None:
    """Each pod that gave vectors is named once, in the order of their names; one that refused is not."""
    names = iter(["pod-b", "pod-a", "pod-b", "pod-a", "pod-b", "pod-a", "pod-b", "pod-a"])

    async def another(request: web.Request, texts: list[str]) -> web.StreamResponse | None:
        fake.pod = next(names)
        return None

    def refuse(texts: list[str]) -> web.StreamResponse:
        answer = error(429, "queue_full", "full", milliseconds=1)
        answer.headers["X-Embedfleet-Pod"] = "pod-full"
        return answer

    fake.faults = [give(refuse), *[another] * 8]
    assert service.embed(TEXTS, with_info=True).pods == ("pod-a", "pod-b")


def test_requests_hold_no_more_tokens_than_a_batch(service: Service, fake: FakeServer) -> None:
    """By estimate: long texts go in smaller requests, but no text counts for more than the model reads of it."""
    texts = [f"{number} " + "word " * 400 for number in range(128)]
    fake.max_tokens = 512
    service.models()
    service.embed(texts)
    assert [len(request["input"]) for request in fake.requests] == [32, 32, 32, 32]
    fake.requests.clear()
    fake.max_tokens = 128
    service.models()
    service.embed(texts)
    assert [len(request["input"]) for request in fake.requests] == [128]


def test_the_deadline_is_told_to_the_server(fake: FakeServer) -> None:
    """With a timeout each request carries what is left of it; without one it carries none."""
    with Service(fake.url) as service:
        service.embed(["a"], timeout=60)
        service.embed(["a"])
    left = int(fake.headers[0]["X-Embedfleet-Deadline-Milliseconds"])
    assert 0 < left <= 60_000
    assert "X-Embedfleet-Deadline-Milliseconds" not in fake.headers[1]
    assert fake.headers[0]["X-Embedfleet-Partial"] == "true"


def test_a_model_that_is_failing_is_waited_for_as_long_as_it_asks(
    service: Service, fake: FakeServer, clock: Clock
) -> None:
    """503 `model_failing` carries a Retry-After, which is obeyed; one that fails on is told with its cause."""
    fake.faults = [give(lambda _: error(503, "model_failing", "its batches fail", milliseconds=7000))]
    assert np.array_equal(service.embed(["a"]), vectors(["a"]))
    assert 7 <= clock.now <= 10.5
    fake.faults = [give(lambda _: error(503, "model_failing", "its batches fail", milliseconds=7000))] * 99
    with pytest.raises(errors.Refused, match="its batches fail"):
        service.embed(["a"])


@pytest.mark.requirement("K3")
def test_an_outage_of_a_minute_is_waited_out(service: Service, fake: FakeServer, clock: Clock) -> None:
    """Nothing listens for 60 s in the middle of a run: it finishes, after at most a tenth more requests than needed.

    While the server is away it is asked once a second, without a body; on its return requests come one by one.
    """
    texts = [f"text {number}" for number in range(128 * 100)]
    returned: list[int] = []

    def come_back() -> None:
        returned.append(len(fake.requests))
        fake.held = fake.highest = 0
        fake.reappear()

    async def vanish(request: web.Request, _: list[str]) -> web.StreamResponse | None:
        clock.events.append((clock.now + 60, come_back))
        await fake.leave()
        return web.Response()

    fake.faults = [give(lambda texts: rows_answer(vectors(texts)))] * 50 + [vanish]
    result = service.embed(iter(texts), with_info=True)
    assert np.array_equal(result.array, vectors(texts))
    assert result.requests == 100
    assert len(fake.requests) <= 110
    assert result.retries <= 10
    assert 60 <= clock.now <= 70
    assert fake.probes <= 5
    assert fake.highest <= 128 * 8


@pytest.mark.requirement("K3")
def test_a_third_of_all_connections_cut(service: Service, fake: FakeServer) -> None:
    """30 % of the requests lose their connection, before or within the answer: every row is right, and in its place."""
    chance = random.Random(7)

    async def maybe(request: web.Request, texts: list[str]) -> web.StreamResponse | None:
        return await cut(after=chance.choice([0, 100, 150, 500]))(request, texts) if chance.random() < 0.3 else None

    fake.faults = [maybe] * 10_000
    texts = [f"text {number}" for number in range(128 * 60)]
    assert np.array_equal(service.embed(texts), vectors(texts))
    assert np.array_equal(np.concatenate(list(service.embed_stream(iter(texts)))), vectors(texts))


def test_a_text_that_takes_its_server_down_is_found(service: Service, fake: FakeServer) -> None:
    """No request is sent more than three times: then its halves are, until the one text is alone."""

    async def die(request: web.Request, texts: list[str]) -> web.StreamResponse | None:
        return await cut()(request, texts) if "text 77" in texts else None

    fake.faults = [die] * 1000
    with pytest.raises(errors.ServiceUnavailable, match="in 3 attempts"):
        service.embed(TEXTS[:128])
    tries = [tuple(request["input"]) for request in fake.requests]
    assert max(tries.count(one) for one in tries) == 3
    assert ("text 77",) in tries


def test_while_nothing_listens_nothing_is_sent(fake: FakeServer, clock: Clock) -> None:
    """However many calls wait, the server that is away is asked once a second; no request counts as tried."""
    fake.vanish()
    clock.events.append((20.0, fake.reappear))

    async def main() -> None:
        async with AsyncService(fake.url, timing=clock.timing) as service:
            results = await asyncio.gather(*(service.embed([text], with_info=True) for text in TEXTS[:50]))
        assert np.array_equal(np.concatenate([one.array for one in results]), vectors(TEXTS[:50]))
        assert all(one.retries == 0 for one in results)

    asyncio.run(main())
    assert len(fake.requests) == 50


def test_the_twins_agree(fake: FakeServer) -> None:
    """Errors, info and streams of the asynchronous client are those of the synchronous one."""
    fake.bad = BAD

    async def main() -> None:
        async with AsyncService(fake.url) as service:
            result = await service.embed(TEXTS, on_error="collect")
            assert [one.index for one in result.errors] == [200, 700]
            arrays = [rows async for rows in service.embed_stream(TEXTS, on_error="nan")]
            assert np.array_equal(np.concatenate(arrays), result.array, equal_nan=True)
            assert (await service.embed_query(["a"])).shape == (1, DIMENSIONS)
            assert (await service.model_info()).fingerprint == "f1"

    asyncio.run(main())
    with Service(fake.url) as service:
        service.embed_document("a")
        assert service.model_info("code").name == "code"
        with pytest.raises(errors.ModelNotFound, match="has: semantic, code"):
            service.model_info("other")
        with pytest.raises(errors.BadInput, match="on_error is 'ignore'"):
            service.embed("a", on_error="ignore")  # type: ignore[call-overload]  # that is the mistake
        with pytest.raises(errors.BadInput, match="of a stream it must be"):
            list(service.embed_stream(["a"], on_error="collect"))  # type: ignore[arg-type]  # that is the mistake
    assert [request.get("input_type") for request in fake.requests[-2:]] == ["query", "document"]
