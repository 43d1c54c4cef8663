"""huggingface_hub without limits of time is given some: what a repository holds it asks for with none.

A connection that nobody takes would else hang for the two minutes that the kernel tries, an answer that never comes for
ever. A Service's address, for one, takes no connection until the node's rules know the Service.
"""

import threading
from collections.abc import MutableMapping
from typing import Any, Protocol

SILENCES = {"connect": 10.0, "read": 30.0, "write": 30.0}
"""Seconds, where the request names none. huggingface_hub gives a file's connection 10; a listing may take a while."""

_lock = threading.Lock()


class Request(Protocol):
    """What is used of a request of httpx, or of its successor httpx2."""

    extensions: MutableMapping[str, Any]


def limit(request: Request) -> None:
    """A hook of the HTTP client: fills in what `request` leaves open."""
    asked = request.extensions.get("timeout") or {}
    request.extensions["timeout"] = {**asked, **{what: s for what, s in SILENCES.items() if asked.get(what) is None}}


def limit_all() -> None:
    """From now on every request of huggingface_hub has limits; does nothing the second time. For any thread."""
    from huggingface_hub import get_session, set_client_factory

    with _lock:
        session = get_session()
        hooks = session.event_hooks["request"]
        if limit not in hooks:
            kind, given = type(session), {"request": [*hooks, limit]}
            set_client_factory(lambda: kind(event_hooks=given, follow_redirects=True, timeout=None))
