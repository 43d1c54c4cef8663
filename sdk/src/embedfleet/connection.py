"""`connect`: from a name to a client that has spoken with its server.

Not `connect.py`: a submodule of that name would take the place of the function `embedfleet.connect` once imported.
"""

from embedfleet import environment, routes
from embedfleet.api.local import LocalRecord, read_records
from embedfleet.client import AsyncService, Service
from embedfleet.errors import EmbedfleetError

VERIFY_SECONDS = 5.0
"""A server answers `/v1/models` from memory; a network between costs well under this."""


def connect(
    name: str | None = None, *, url: str | None = None, api_key: str | None = None, model: str | None = None
) -> Service:
    """A client of the service `name`, or of the one service that has a model of that name.

    Args:
        name: a service, else a model of exactly one; None: the only service that runs here.
        url: its address, instead of looking for it (also EMBEDFLEET_URL).
        api_key: sent as Bearer token (also EMBEDFLEET_API_KEY).
        model: default model of the client's calls.

    Raises:
        ServiceNotFound: nothing of that name; says what exists and where it looked.
        ServiceUnavailable: found, and does not answer.
        ProtocolError: what answers is no embedfleet server.
    """
    route, key = _route(name, url, api_key)
    service = Service(route.url, api_key=key, model=model or route.model)
    try:
        cards = service.verify(VERIFY_SECONDS)
        chosen = routes.choose_model(route, name, model or route.model, cards)
    except EmbedfleetError as error:
        service.close()
        error.add_note(f"The address came from {route.origin}.")
        raise
    service.model = chosen
    return service


async def connect_async(
    name: str | None = None, *, url: str | None = None, api_key: str | None = None, model: str | None = None
) -> AsyncService:
    """The twin of `connect` for `async` code."""
    route, key = _route(name, url, api_key)
    service = AsyncService(route.url, api_key=key, model=model or route.model)
    try:
        cards = await service.verify(VERIFY_SECONDS)
        service.model = routes.choose_model(route, name, model or route.model, cards)
    except BaseException as error:
        await service.close()
        if isinstance(error, EmbedfleetError):
            error.add_note(f"The address came from {route.origin}.")
        raise
    return service


def services() -> list[LocalRecord]:
    """The services that run on this machine, by name."""
    return read_records(environment.read().records)


def _route(name: str | None, url: str | None, api_key: str | None) -> tuple[routes.Route, str | None]:
    around = environment.read()
    records = [] if url or around.url else read_records(around.records)
    return routes.find(name, url, around, records), api_key or around.api_key
