"""What answers and the log tell of a request."""

import json
import logging

import pytest

from tests.support.served import run, serving

pytestmark = pytest.mark.requirement("S1")
TRACE = "0af7651916cd43dd8448eb211c80319c"


def test_answers_name_their_request() -> None:
    """The caller's id comes back, and its trace with a span of ours; without one both are new; on errors too."""

    async def main() -> None:
        async with serving() as served:
            sent = {"X-Request-Id": "mine-1", "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
            for text, status in (("good", 200), ("", 422)):
                reply = await served.embed(text, headers=sent)
                assert (reply.status, reply.headers["X-Request-Id"]) == (status, "mine-1")
                version, trace, span, flags = reply.headers["traceparent"].split("-")
                assert (version, trace, flags) == ("00", TRACE, "01")
                assert span != "b7ad6b7169203331"
            ids = {(await served.embed("x")).headers["X-Request-Id"] for _ in range(3)}
            assert len(ids) == 3
            assert (await served.embed("x")).headers["Server"] == "embedfleet"

    run(main())


def test_one_line_for_each_request_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    """JSON with id, trace, path, status, code and time; neither the text nor the key is in it. At info: nothing."""

    async def main() -> None:
        async with serving() as served:
            caplog.set_level(logging.INFO, "embedfleet_server")
            await served.embed("quiet")
            caplog.set_level(logging.DEBUG, "embedfleet_server")
            await served.embed("a text that is nobody's business", headers={"X-Request-Id": "r1", "X-API-Key": "hush"})
            await served.embed("x", model="nope")

    run(main())
    lines = [r.getMessage().removeprefix("request ") for r in caplog.records if r.getMessage().startswith("request {")]
    first, second = (json.loads(line) for line in lines)
    assert (first["id"], first["status"], first["code"], first["path"]) == ("r1", 200, "ok", "/v1/embeddings")
    assert (second["status"], second["code"]) == (404, "model_not_found")
    assert first["milliseconds"] > 0
    assert "business" not in caplog.text
    assert "hush" not in caplog.text
