"""The programs of `helm test`'s pods, run here as they are against a real server and a real operator's port."""

import asyncio
import os
import secrets
import sys
from pathlib import Path

import pytest

from embedfleet_operator import health
from embedfleet_operator.configuration import Configuration
from embedfleet_server.app.keys import Keys
from tests.support.charts import CHART, Helm, one
from tests.support.fake_model import FakeModel
from tests.support.served import Served, run, serving

pytestmark = pytest.mark.requirement("O6")


async def check(program: str, **environ: str) -> tuple[int, str]:
    """Its exit status and all that it wrote; it gives up at once unless told otherwise."""
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        str(CHART / "files" / f"check_{program}.py"),
        env={"PATH": os.environ["PATH"], "WAIT_SECONDS": "0", **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        wrote, _ = await started.communicate()
    finally:  # a test that is out of time leaves no process behind
        if started.returncode is None:
            started.kill()
            await started.wait()
    assert started.returncode is not None
    return started.returncode, wrote.decode().strip()


def url(served: Served) -> str:
    return f"http://{served.host}:{served.port}/v1/embeddings"


def test_a_service_embeds_a_sentence() -> None:
    """The program says which model answered, and how many numbers came."""

    async def main() -> None:
        async with serving(
            {"semantic": FakeModel, "code": lambda: FakeModel("code")}, default_model="semantic"
        ) as served:
            status, wrote = await check("service", URL=url(served), SENTENCE="a text")
            assert (status, wrote.split(", length")[0]) == (0, "semantic: a vector of 8 numbers")
            status, wrote = await check("service", URL=url(served), SENTENCE="a text", MODEL="code")
            assert (status, wrote.split(":")[0]) == (0, "code")

    run(main())


def test_a_key_is_sent(tmp_path: Path) -> None:
    """Where the service wants keys, the one from the Secret opens it; without it the test fails and says why."""

    async def main() -> None:
        (tmp_path / "team").write_text("secret")
        async with serving(keys=Keys(tmp_path)) as served:
            assert (await check("service", URL=url(served), SENTENCE="a", API_KEY="secret"))[0] == 0
            status, wrote = await check("service", URL=url(served), SENTENCE="a")
            assert (status, "status 401" in wrote) == (1, True)

    run(main())


def test_a_refusal_is_told_in_the_servers_words() -> None:
    """A model that is not there fails the test at once, and the server's message is in the log."""

    async def main() -> None:
        async with serving() as served:
            status, wrote = await check("service", URL=url(served), SENTENCE="a", MODEL="no", WAIT_SECONDS="600")
            assert status == 1
            assert "status 404" in wrote
            assert "model_not_found" in wrote

    run(main())


def test_a_server_that_is_not_there_is_told() -> None:
    """Neither a service nor an operator: the test fails once its time is up, and says where it looked."""

    async def main() -> None:
        nowhere = "http://127.0.0.1:9/live"
        for program in ("service", "operator"):
            status, wrote = await check(program, URL=nowhere, SENTENCE="a text")
            assert status == 1
            assert nowhere in wrote
            assert "refused" in wrote

    run(main())


@pytest.mark.parametrize(("live", "status", "told"), [(True, 0, "ok"), (False, 1, "the watch hears nothing")])
def test_the_operator_is_asked(live: bool, status: int, told: str) -> None:
    """The real health port: a live operator passes, a deaf one fails in its own words."""

    async def main() -> None:
        address = "127." + ".".join(str(1 + byte % 254) for byte in secrets.token_bytes(3))  # the port is free there
        configuration = Configuration(identity="", observe_host=address, observe_port=8081)
        async with health.served(configuration, lambda: live, lambda: b""):
            ended, wrote = await check("operator", URL=f"http://{address}:8081/live")
        assert (ended, told in wrote) == (status, True), wrote

    run(main())


def test_pods_run_these_programs_as_they_are(helm: Helm) -> None:
    """What a pod's interpreter gets is the file, and the sentence arrives whole whatever is in it."""
    sentence = 'a "quoted"\n{{ sentence }} é'
    objects = helm.template({"test.service": "semantic", "test.sentence": sentence, "test.namespace": "team"})
    for program, name in (("operator", "embedfleet-test-operator"), ("service", "embedfleet-test-service")):
        (container,) = one(objects, "Pod", name)["spec"]["containers"]
        assert container["args"] == [(CHART / "files" / f"check_{program}.py").read_text(encoding="utf-8")]
    pod = one(objects, "Pod", "embedfleet-test-service")
    environ = {each["name"]: each["value"] for each in pod["spec"]["containers"][0]["env"]}
    assert environ["SENTENCE"] == sentence
    assert environ["URL"] == "http://semantic.team.svc:8080/v1/embeddings"
    assert pod["metadata"]["namespace"] == "team"
