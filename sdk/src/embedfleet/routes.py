"""From a name to an address; decided here, purely, from what the caller gave and what runs here."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from embedfleet.api.local import LocalRecord
from embedfleet.environment import Environment
from embedfleet.errors import AmbiguousName, RequestRejected, ServiceNotFound
from embedfleet.wire import ModelCard


@dataclass(frozen=True, slots=True)
class Route:
    """The way to a service: its address, how it was found, and the model that the name stands for, if it does."""

    url: str
    origin: str
    model: str | None = None


def find(name: str | None, url: str | None, environment: Environment, records: Sequence[LocalRecord]) -> Route:
    """The first of: the address given, EMBEDFLEET_URL, a local service of that name, the one local model of it."""
    return explicit(url, environment) if url or environment.url else local(name, environment, records)


def explicit(url: str | None, environment: Environment) -> Route:
    """The address given, else EMBEDFLEET_URL; one of them is set."""
    if url:
        return Route(base_url(url), "the url given")
    return Route(base_url(environment.url or ""), "EMBEDFLEET_URL")


def local(name: str | None, environment: Environment, records: Sequence[LocalRecord]) -> Route:
    """A service on this machine, or the one model of that name here. Raises `ServiceNotFound`, `AmbiguousName`."""
    looked = f"services running on this machine ({environment.records})"
    return _only(records, looked) if name is None else _named(name, records, looked)


def choose_model(route: Route, name: str | None, model: str | None, cards: Sequence[ModelCard]) -> str | None:
    """The model that calls use by default, once the server at `route` has said what it is.

    `ServiceNotFound` when `name` is neither its service nor one of its models.
    """
    if model is not None or name is None:
        return model
    if any(card.service == name for card in cards):
        return None
    if any(card.name == name for card in cards):
        return name
    raise ServiceNotFound(_elsewhere(route, name, cards), [route.origin], [card.name for card in cards])


def base_url(url: str) -> str:
    """`url` without a trailing slash or `/v1`; `RequestRejected` when it is no http address."""
    text = url.strip().rstrip("/").removesuffix("/v1").rstrip("/")
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise RequestRejected(f"the url is {url!r}; it must be like http://127.0.0.1:8080", "invalid_url")
    return text


def _only(records: Sequence[LocalRecord], looked: str) -> Route:
    if len(records) == 1:
        return _route(records[0])
    if records:
        text = f"several services run here; name one of them: {_listed(records)}"
        raise AmbiguousName(text, [looked], [record.service for record in records])
    raise ServiceNotFound(_nothing("no service", looked, records), [looked])


def _named(name: str, records: Sequence[LocalRecord], looked: str) -> Route:
    for record in records:
        if record.service == name:
            return _route(record)
    having = [record for record in records if name in record.models]
    if len(having) == 1:
        return _route(having[0], name)
    if having:
        text = f"several services have a model {name!r}: {_listed(having)}; connect to one of them with model={name!r}"
        raise AmbiguousName(text, [looked], [record.service for record in having])
    text = _nothing(f"no service or model {name!r}", looked, records)
    raise ServiceNotFound(text, [looked], [record.service for record in records])


def _route(record: LocalRecord, model: str | None = None) -> Route:
    return Route(base_url(record.url), f"the service {record.service!r} on this machine (pid {record.pid})", model)


def _nothing(what: str, looked: str, records: Sequence[LocalRecord]) -> str:
    found = f"there: {_listed(records)}" if records else "none runs there: start one with `embedfleet serve -f FILE`"
    return f"{what} was found. Looked at: the url argument and EMBEDFLEET_URL (not set); {looked}; {found}"


def _listed(records: Sequence[LocalRecord]) -> str:
    return "; ".join(f"{record.service} (models {', '.join(record.models)}) at {record.url}" for record in records)


def _elsewhere(route: Route, name: str, cards: Sequence[ModelCard]) -> str:
    service = cards[0].service if cards else "nameless"
    models = ", ".join(card.name for card in cards)
    return f"{route.url} ({route.origin}) is the service {service!r} with the models {models}; it has no {name!r}"
