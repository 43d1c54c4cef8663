"""The table from errors to answers: whole, and its words safe to send."""

import asyncio
import json
import logging

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from embedfleet_server.app import errors as app
from embedfleet_server.app.errors import ADMITTED, CODES, TABLE, OverlongItems, UnservableRows, describe, middleware
from embedfleet_server.engine import errors as engine
from embedfleet_server.engine.errors import ItemError
from tests.support.virtual_time import run

pytestmark = pytest.mark.requirement("S1")
ITEM = ItemError(2, "empty", "is empty")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (engine.InvalidRequest("x", "model"), 400, "invalid_request"),
        (engine.ModelNotFound("x", ["a"]), 404, "model_not_found"),
        (app.BodyTimeout("x"), 408, "request_timeout"),
        (engine.TooLarge("x"), 413, "input_too_large"),
        (OverlongItems([ITEM]), 413, "input_too_large"),
        (app.CompressedBody("x"), 415, "unsupported_media_type"),
        (engine.BadItems([ITEM]), 422, "invalid_input"),
        (engine.QueueFull("x", 0.2), 429, "queue_full"),
        (engine.BatchFailed("x"), 500, "internal"),
        (engine.Stopped("x"), 500, "internal"),
        (UnservableRows([ITEM]), 500, "internal"),
        (engine.ShuttingDown("x"), 503, "shutting_down"),
        (engine.DeviceLost("x"), 503, "device_lost"),
        (engine.ModelLoading("x"), 503, "model_loading"),
        (engine.ModelFailing("m", "x"), 503, "model_failing"),
        (engine.ModelLoadFailed("m", "x"), 503, "model_failed"),
        (engine.DeadlineExceeded("x"), 504, "deadline_exceeded"),
        (KeyError("x"), 500, "internal"),
    ],
)
def test_every_error_has_its_answer(error: Exception, status: int, code: str) -> None:
    """Status and code of each error; `accepted` only for what failed once the engine had the request."""
    failure = describe(error, admitted=True)
    assert (failure.row.status, failure.row.code) == (status, code)
    assert failure.accepted is (status in (500, 504) or code == "device_lost")
    assert describe(error, admitted=False).accepted is False
    assert ("Retry-After" in failure.headers()) is (status in (429, 503))


def _leaves(kind: type[Exception]) -> list[type[Exception]]:
    below = [leaf for child in kind.__subclasses__() for leaf in _leaves(child)]
    return below or [kind]


def test_no_error_of_the_engine_is_forgotten() -> None:
    """Every leaf of both error trees is answered by a row of the table."""
    for kind in _leaves(engine.EngineError) + _leaves(app.AppError):
        assert any(parent in TABLE for parent in kind.__mro__), kind


def test_retry_after_is_whole_seconds_and_exact_milliseconds() -> None:
    """`Retry-After` is rounded up to at least 1, the milliseconds are exact to one."""
    for seconds, whole, exact in ((0.0, "1", "1"), (0.2, "1", "200"), (1.0, "1", "1000"), (1.0001, "2", "1001")):
        headers = describe(engine.QueueFull("x", seconds), admitted=False).headers()
        assert (headers["Retry-After"], headers["X-Embedfleet-Retry-After-Milliseconds"]) == (whole, exact)


def test_body_is_openai_shaped() -> None:
    """The JSON holds message, type, code, param, accepted, and every bad index where there are some."""
    body = json.loads(describe(engine.BadItems([ITEM, ItemError(0, "wrong_type", "is null")]), admitted=True).body())
    assert body == {
        "error": {
            "message": "input[2]: is empty; input[0]: is null",
            "type": "invalid_request_error",
            "code": "invalid_input",
            "param": "input",
            "accepted": False,
            "errors": [
                {"index": 0, "code": "wrong_type", "message": "is null"},
                {"index": 2, "code": "empty", "message": "is empty"},
            ],
        }
    }


def test_unforeseen_errors_show_nothing_of_themselves() -> None:
    """The message of an unexpected error stays in the log."""
    assert b"secret" not in describe(RuntimeError("secret"), admitted=True).body()


def test_quoted_surrogates_do_not_break_the_answer() -> None:
    """A name with a lone surrogate can be quoted in an error: it is escaped."""
    body = json.loads(describe(engine.ModelNotFound("\ud800", ["a"]), admitted=False).body())
    assert "\\ud800" in body["error"]["message"]


def test_codes_are_bounded_and_complete() -> None:
    """The metrics' label takes the codes of the table, ok, and a client that left: nothing else."""
    assert {row.code for row in TABLE.values()} < set(CODES)
    assert {"ok", "client_gone", "not_found", "method_not_allowed"} < set(CODES)


def test_failed_requests_are_logged_sparingly(caplog: pytest.LogCaptureFixture) -> None:
    """Of 25 that fail within a second ten are logged, all are answered; the next line says that 15 were left out."""
    caplog.set_level(logging.WARNING, "embedfleet_server")

    async def late(request: web.Request) -> web.StreamResponse:
        request[ADMITTED] = True
        raise engine.DeadlineExceeded("too late")

    async def main() -> None:
        answer = middleware(lambda code: None, lambda: None)
        for _ in range(25):
            assert (await answer(make_mocked_request("POST", "/embed"), late)).status == 504
        assert len(caplog.messages) == 10
        await asyncio.sleep(1.5)
        await answer(make_mocked_request("POST", "/embed"), late)
        assert caplog.messages[10:] == ["request failed code=deadline_exceeded message=too late left_out=15"]

    run(main())
