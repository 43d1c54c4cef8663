"""From a name to a client that has spoken with its server."""

import os
from pathlib import Path

import pytest

import embedfleet
from embedfleet import errors
from embedfleet.api.local import LocalRecord, runtime_directory, write_record
from tests.support.fake_server import FakeServer, serving


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This machine with nothing running on it."""
    for name in ("EMBEDFLEET_URL", "EMBEDFLEET_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return runtime_directory(os.environ)


def announce(directory: Path, fake: FakeServer, *, service: str | None = None, pid: int | None = None) -> LocalRecord:
    """Let the server be found."""
    record = LocalRecord(
        service=service or fake.service,
        pid=pid or os.getpid(),
        url=fake.url,
        observe_url=fake.url,
        models=list(fake.models),
    )
    write_record(directory, record)
    return record


@pytest.mark.requirement("K1", "K2")
def test_a_local_service_is_found_by_its_name_its_model_or_alone(here: Path) -> None:
    """No configuration: the name of the service, of one of its models, or nothing at all when it is the only one."""
    with serving(FakeServer(service="search", models=("text", "code"))) as fake:
        record = announce(here, fake)
        assert embedfleet.services() == [record]
        for name, model in (("search", None), ("code", "code"), (None, None)):
            with embedfleet.connect(name) as service:
                assert service.info.name == "search"
                assert service.model == model
                assert service.embed("a").shape == (8,)


@pytest.mark.requirement("K2")
def test_nothing_running_says_where_it_looked(here: Path) -> None:
    """The directory of the records is named, and how to start a service."""
    with pytest.raises(errors.ServiceNotFound, match="embedfleet serve") as caught:
        embedfleet.connect("semantic")
    assert str(here) in str(caught.value)


def test_a_record_of_a_dead_process_is_passed_over(here: Path) -> None:
    """A server that was killed leaves its record; nobody is sent there."""
    child = os.spawnlp(os.P_NOWAIT, "true", "true")
    os.waitpid(child, 0)
    announce(here, FakeServer(url="http://127.0.0.1:9"), pid=child)
    with pytest.raises(errors.ServiceNotFound):
        embedfleet.connect("semantic")


def test_a_record_whose_server_does_not_answer(here: Path) -> None:
    """The error names the address and says where it came from."""
    announce(here, FakeServer(url="http://127.0.0.1:9"))
    with pytest.raises(errors.ServiceUnavailable, match=r"http://127\.0\.0\.1:9") as caught:
        embedfleet.connect("semantic")
    assert "the service 'semantic' on this machine" in caught.value.__notes__[0]


def test_another_service_at_the_address_is_not_taken_for_it(here: Path) -> None:
    """A record may be older than what listens there now: the server itself says what it is."""
    with serving(FakeServer(service="shop", models=("text",))) as fake:
        announce(here, fake, service="search")
        with pytest.raises(
            errors.ServiceNotFound, match="is the service 'shop' with the models text; it has no 'search'"
        ):
            embedfleet.connect("search")


def test_the_environment_names_address_and_key(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EMBEDFLEET_URL and EMBEDFLEET_API_KEY serve where nothing was given."""
    with serving(FakeServer()) as fake:
        monkeypatch.setenv("EMBEDFLEET_URL", fake.url + "/v1")
        monkeypatch.setenv("EMBEDFLEET_API_KEY", "from the environment".replace(" ", "-"))
        with embedfleet.connect("code") as service:
            service.embed("a")
        assert fake.headers[0]["Authorization"] == "Bearer from-the-environment"
        assert fake.requests[0]["model"] == "code"


def test_a_web_server_is_no_service(here: Path) -> None:
    """An address that answers in HTML is told apart from one that does not answer."""
    with serving(FakeServer()) as fake, pytest.raises(errors.ProtocolError, match="does not answer like an embedfleet"):
        embedfleet.connect(url=fake.url + "/nowhere")
