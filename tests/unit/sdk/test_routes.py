"""From a name to an address."""

from pathlib import Path

import pytest

from embedfleet import environment, routes
from embedfleet.api.local import LocalRecord
from embedfleet.environment import Environment
from embedfleet.errors import AmbiguousName, RequestRejected, ServiceNotFound
from embedfleet.routes import Route, base_url, choose_model, find
from embedfleet.wire import ModelCard

RECORDS = Path("/run/user/7/embedfleet")
NOTHING = Environment(None, None, RECORDS)


def record(service: str, *models: str, port: int = 1) -> LocalRecord:
    """A service that runs here."""
    return LocalRecord(
        service=service, pid=7, url=f"http://127.0.0.1:{port}", observe_url="http://127.0.0.1:9", models=list(models)
    )


def card(service: str, name: str) -> ModelCard:
    """What a server tells of one model."""
    return ModelCard(name=name, service=service, state="Ready", max_inputs=10)


SEARCH, SHOP = record("search", "text", "code", port=1), record("shop", "text", "search", port=2)


@pytest.mark.requirement("K2")
def test_a_services_name_wins_over_a_models() -> None:
    """`search` is a service here, and a model of another: the service it is."""
    assert find("search", None, NOTHING, [SHOP, SEARCH]) == Route(
        "http://127.0.0.1:1", "the service 'search' on this machine (pid 7)"
    )


@pytest.mark.requirement("K2")
def test_a_model_of_exactly_one_service_is_a_name_too() -> None:
    """Calls then go to that model by default."""
    route = find("code", None, NOTHING, [SEARCH, SHOP])
    assert (route.url, route.model) == ("http://127.0.0.1:1", "code")


@pytest.mark.requirement("K2")
def test_a_model_of_several_services_is_refused_with_the_list() -> None:
    """The error lists the services and how to choose."""
    with pytest.raises(AmbiguousName) as caught:
        find("text", None, NOTHING, [SEARCH, SHOP])
    assert caught.value.found == ("search", "shop")
    assert "model='text'" in str(caught.value)


@pytest.mark.requirement("K2")
def test_an_unknown_name_says_what_exists_and_where_it_looked() -> None:
    """Nothing is guessed."""
    with pytest.raises(ServiceNotFound) as caught:
        find("serach", None, NOTHING, [SEARCH])
    assert caught.value.found == ("search",)
    for part in ("'serach'", "search (models text, code) at http://127.0.0.1:1", "EMBEDFLEET_URL", str(RECORDS)):
        assert part in str(caught.value)


def test_without_a_name_the_only_service_is_meant() -> None:
    """One service: that one. None: how to start one. Several: name one."""
    assert find(None, None, NOTHING, [SEARCH]).url == "http://127.0.0.1:1"
    with pytest.raises(ServiceNotFound, match="embedfleet serve"):
        find(None, None, NOTHING, [])
    with pytest.raises(AmbiguousName, match=r"name one of them: search .*; shop"):
        find(None, None, NOTHING, [SEARCH, SHOP])


def test_an_address_wins_over_the_environment_and_both_over_what_runs_here() -> None:
    """What is said outright is used."""
    around = Environment("http://env:1/v1/", None, RECORDS)
    assert find("search", "https://given", around, [SEARCH]).url == "https://given"
    assert find("search", None, around, [SEARCH]) == Route("http://env:1", "EMBEDFLEET_URL")


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://h:8080", "http://h:8080"),
        ("http://h:8080/", "http://h:8080"),
        ("https://h/prefix/v1/", "https://h/prefix"),
        ("http://[::1]:8080/v1", "http://[::1]:8080"),
    ],
)
def test_an_address_may_end_as_openais_clients_want_it(url: str, base: str) -> None:
    """A trailing slash and `/v1` do no harm."""
    assert base_url(url) == base


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://h", "http://", "http://h:99999", "", "http://[::1"])
def test_what_is_no_address_is_refused(url: str) -> None:
    """The error shows the form that one must have."""
    with pytest.raises(RequestRejected, match="like http://127"):
        base_url(url)


def test_the_server_decides_what_the_name_at_an_address_means() -> None:
    """Its service: no model by default. One of its models: that one. Neither: an error that says what it is."""
    route, cards = Route("http://h", "the url given"), [card("search", "text"), card("search", "code")]
    assert choose_model(route, "search", None, cards) is None
    assert choose_model(route, "code", None, cards) == "code"
    assert choose_model(route, "code", "text", cards) == "text"
    with pytest.raises(ServiceNotFound, match="is the service 'search' with the models text, code; it has no 'shop'"):
        choose_model(route, "shop", None, cards)


def test_the_environment_is_what_its_variables_say() -> None:
    """Empty variables are unset ones."""
    given = {"EMBEDFLEET_URL": "http://h", "EMBEDFLEET_API_KEY": "k", "XDG_RUNTIME_DIR": "/run/user/7"}
    assert environment.read(given) == Environment("http://h", "k", RECORDS)
    assert environment.read({"EMBEDFLEET_URL": "", "XDG_RUNTIME_DIR": "/run/user/7"}) == NOTHING


def test_routes_know_no_client() -> None:
    """The module decides and neither opens a connection nor reads a file."""
    assert not {"aiohttp", "os"} & set(vars(routes))
