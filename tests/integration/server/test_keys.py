"""Keys over a real socket: who gets in, who does not, and what is left of a key in the log."""

import hashlib
import logging
from pathlib import Path
from typing import Any

import pytest

from embedfleet_server.app.keys import Keys
from tests.support.process import process
from tests.support.served import Served, run, serving

pytestmark = pytest.mark.requirement("S6")
DIGEST = f"sha256:{hashlib.sha256(b'secret').hexdigest()}"
WORK = [
    ("POST", "/v1/embeddings"), ("POST", "/embeddings"), ("GET", "/v1/models"), ("POST", "/"), ("POST", "/embed"),
    ("POST", "/similarity"), ("POST", "/rerank"), ("POST", "/v1/rerank"), ("POST", "/tokenize"), ("GET", "/info"),
    ("POST", "/models/semantic/embed"), ("GET", "/no/such/route"),
]  # fmt: skip


def write(directory: Path, **files: str) -> Keys:
    for name, text in files.items():
        (directory / name).write_text(text)
    return Keys(directory)


def tenants(served: Served, seen: list[str]) -> None:
    """Have the engine's tenants noted in `seen`."""
    embed = served.engine.embed

    async def noting(*arguments: Any, **options: Any) -> Any:
        seen.append(options["tenant"])
        return await embed(*arguments, **options)

    served.engine.embed = noting  # type: ignore[method-assign]  # what it was asked for, and then what it does


def test_a_valid_key_opens_and_names_the_tenant(tmp_path: Path) -> None:
    """Any key of any file, in either header; the engine is told the file's name as tenant."""

    async def main() -> None:
        async with serving(keys=write(tmp_path, a="one\ntwo", b="three")) as served:
            seen: list[str] = []
            tenants(served, seen)
            for headers in ({"Authorization": "Bearer one"}, {"X-API-Key": "two"}, {"X-API-Key": "three"}):
                assert (await served.embed("x", headers=headers)).status == 200
            assert seen == ["a", "a", "b"]

    run(main())


def test_without_a_valid_key_nothing_is_done(tmp_path: Path) -> None:
    """No key, a wrong one, a digest in place of its key: 401 on every route, before a byte of the body is read."""

    async def main() -> None:
        async with serving(keys=write(tmp_path, a="secret", b=DIGEST)) as served:
            for method, path in WORK:
                for headers in ({}, {"X-API-Key": "wrong"}, {"Authorization": "Basic secret"}, {"X-API-Key": DIGEST}):
                    reply = await served.ask(
                        method, path, headers=headers, **({"data": b"x"} if method == "POST" else {})
                    )
                    assert reply.status == 401, (method, path)
                    assert reply.headers["WWW-Authenticate"] == "Bearer"
            reply = await served.embed("x", headers={"Authorization": "Bearer wrong"})
            assert (reply.error["code"], reply.error["type"]) == ("invalid_api_key", "invalid_request_error")
            assert reply.error["accepted"] is False
            assert "wrong" not in reply.error["message"]
            assert served.engine.stats().submitted == 0
            metrics = (await served.observe("/metrics")).body.decode()
            assert 'embedfleet_requests_total{code="invalid_api_key"}' in metrics

    run(main())


def test_what_needs_no_key(tmp_path: Path) -> None:
    """Health and the documentation answer without one: they tell nothing of models or texts."""

    async def main() -> None:
        async with serving(keys=write(tmp_path, a="secret")) as served:
            for path in ("/health", "/docs", "/openapi.json"):
                assert (await served.ask("GET", path)).status == 200, path

    run(main())


@pytest.mark.parametrize("text", ["", "# no key yet\n", "two words"])
def test_keys_that_cannot_be_used_refuse_everybody(tmp_path: Path, text: str) -> None:
    """A directory without one valid key lets nobody in, with any key or none."""

    async def main() -> None:
        async with serving(keys=write(tmp_path, a=text)) as served:
            for key in ("", text.strip() or "x", "two"):
                assert (await served.embed("x", headers={"X-API-Key": key})).status == 401

    run(main())


def test_keys_change_while_connections_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """On one kept-alive connection a revoked key is refused and a new one taken; no key is ever logged."""
    caplog.set_level(logging.DEBUG)

    async def main() -> None:
        keys = write(tmp_path, a="old-secret")
        async with serving(keys=keys) as served:
            assert (await served.embed("x", headers={"X-API-Key": "old-secret"})).status == 200
            (tmp_path / "a").write_text("new-secret-2")
            keys.look()
            assert (await served.embed("x", headers={"X-API-Key": "old-secret"})).status == 401
            assert (await served.embed("x", headers={"X-API-Key": "new-secret-2"})).status == 200

    run(main())
    assert "secret" not in caplog.text


def test_wrong_files_show(tmp_path: Path) -> None:
    """`/state` and the metrics count them, without a word of what they hold; where nothing is guarded both say so."""

    async def main() -> None:
        async with serving(keys=write(tmp_path, a="good-key", b="two words")) as served:
            state = await served.observe("/state")
            assert (state.json["keys"], state.json["tls"]) == ({"keys": 1, "tenants": 1, "rejected": 2}, None)
            metrics = (await served.observe("/metrics")).body
            assert b'embedfleet_rejected_files_total{kind="keys"} 2.0' in metrics
            assert b"good-key" not in state.body + metrics
        async with serving() as served:
            assert (await served.observe("/state")).json["keys"] is None

    run(main())


def test_the_process_takes_a_directory_of_keys(tmp_path: Path) -> None:
    """`--api-keys DIR` guards the public port; the observation port stays open to probes."""
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "team").write_text("process-secret")
    with process(tmp_path, "--api-keys", str(keys)) as server:
        server.line("is ready at")
        assert server.embed("x")[0].status == 401
        assert (
            server.ask("POST", "/v1/embeddings", {"input": "x"}, headers={"X-API-Key": "process-secret"})[0].status
            == 200
        )
        assert server.ask("GET", "/ready", observe=True)[0].status == 200
        server.running.terminate()
        out, err = server.running.communicate(timeout=60)
        assert "process-secret" not in out + err
