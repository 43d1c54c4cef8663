"""Requests to the API server: one HTTP exchange each, errors as the operator's own."""

import json
from collections.abc import Mapping
from typing import Any, Protocol, Self

import aiohttp

from embedfleet_operator.credentials import Credentials
from embedfleet_operator.errors import Refused, Unreachable
from embedfleet_operator.observed import plain

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
"""JSON is YAML, so it may be sent as it."""

_SECONDS, _CONNECT_SECONDS = 30, 5
"""Of a whole exchange, admission webhooks (at most 30 s) among it; and of getting a connection."""

Plain = dict[str, Any]


class Transport(Protocol):
    """A way to the API server; tests put one that fails around another."""

    async def request(
        self, method: str, path: str, query: Mapping[str, str], body: Plain | None, content: str
    ) -> Plain:
        """The answer's object. Raises `Refused` when it is an error, `Unreachable` when there is none."""
        ...


class HttpTransport:
    """The API server of `credentials`; as an asynchronous context manager it keeps its connections open."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._credentials.tls, limit=64)
        timeout = aiohttp.ClientTimeout(total=_SECONDS, sock_connect=_CONNECT_SECONDS)
        self._session = aiohttp.ClientSession(self._credentials.url, connector=connector, timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def request(
        self, method: str, path: str, query: Mapping[str, str], body: Plain | None, content: str
    ) -> Plain:
        """See `Transport`."""
        headers = {**self._credentials.headers, "Content-Type": content, "Accept": JSON}
        data = None if body is None else json.dumps(body)
        try:
            async with self._session.request(method, path, params=query, data=data, headers=headers) as answer:
                return _read(answer.status, await answer.text())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f"{method} {path}: {error!r}") from error


def _read(status: int, text: str) -> Plain:
    """The object in an answer; an error is a `Status`, or a proxy's own words."""
    try:
        tree = json.loads(text)
    except json.JSONDecodeError:
        tree = {}
    if status >= 400:  # HTTP's errors
        raise Refused(status, plain.text(tree, "reason") or "Error", plain.text(tree, "message") or text[:500])
    return tree if isinstance(tree, dict) else {}
