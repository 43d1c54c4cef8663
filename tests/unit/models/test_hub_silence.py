"""No request of huggingface_hub waits for ever, whatever limits it names itself."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import get_session

from embedfleet_server.models.hub_silence import SILENCES, limit, limit_all

pytestmark = pytest.mark.requirement("O4")
OPEN = {"connect": None, "read": None, "write": None, "pool": None}


@pytest.mark.parametrize(
    ("asked", "limited"),
    [
        ({}, SILENCES),
        ({"timeout": OPEN}, SILENCES | {"pool": None}),
        ({"timeout": OPEN | {"connect": 2.0}}, SILENCES | {"connect": 2.0, "pool": None}),
    ],
)
def test_what_is_left_open_is_limited(asked: dict[str, Any], limited: dict[str, Any]) -> None:
    """A limit that the request has stays; the others are filled in."""
    request = SimpleNamespace(extensions=dict(asked))
    limit(request)
    assert request.extensions["timeout"] == limited


def test_the_hubs_client_is_told_once() -> None:
    """Threads that load models beside each other do not take the client from each other; its own hooks stay."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: limit_all(), range(8)))
    session = get_session()
    limit_all()
    assert get_session() is session
    assert session.event_hooks["request"].count(limit) == 1
    assert len(session.event_hooks["request"]) > 1
