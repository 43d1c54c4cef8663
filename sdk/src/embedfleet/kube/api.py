"""Requests to the API server: one HTTP exchange each, errors as the SDK's own."""

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Self

import aiohttp

from embedfleet.api.service import API_VERSION, PLURAL
from embedfleet.errors import ClusterError, ClusterRefused, ClusterUnavailable, Forbidden, LoginFailed, ObjectMissing
from embedfleet.kube.credentials import Credentials
from embedfleet.sockets import why
from embedfleet.wire import excerpt

Tree = dict[str, Any]

CONNECT_SECONDS = 3.0
"""A dead cluster is told as such after this."""
WHOLE_SECONDS = 30.0
"""Of a whole exchange that changes something: admission webhooks may take as long as that."""

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"

SERVICES = f"/apis/{API_VERSION}"
"""The EmbeddingServices of all namespaces stand below it."""


class ApiServer:
    """The API server; as an asynchronous context manager it keeps its connections open."""

    def __init__(self, credentials: Credentials, seconds: float = WHOLE_SECONDS) -> None:
        self.credentials = credentials
        self._seconds = seconds

    async def __aenter__(self) -> Self:
        await self.credentials.ready()
        self._session = self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    @property
    def where(self) -> str:
        """Which API server, for messages."""
        return f"context {self.credentials.context.name!r} ({self.credentials.server.url})"

    async def get(self, path: str, **query: str) -> Tree:
        """The object or list at `path`."""
        return await self.ask("GET", path, query)

    async def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content: str = JSON,
    ) -> Tree:
        """The answer's object.

        Raises `ClusterUnavailable`, `LoginFailed` (401 in spite of one renewal), `Forbidden`, `ObjectMissing`,
        `ClusterRefused`.
        """
        status, text = await self._exchange(method, path, query, body, content)
        if status == 401 and await self.credentials.renew():
            await self._again()
            status, text = await self._exchange(method, path, query, body, content)
        return self._read(status, text)

    async def lines(self, path: str, **query: str) -> AsyncGenerator[bytes, None]:
        """The lines of a text at `path` as they come, for as long as the API server sends any."""
        headers = await self.credentials.headers()
        try:
            async with self._session.get(
                f"{self.credentials.server.url}{path}", params=query, headers=headers, timeout=_endless()
            ) as answer:
                if answer.status != 200:
                    self._read(answer.status, await answer.text(errors="replace"))
                async for line in answer.content:
                    yield line
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._dead(error) from error

    async def _exchange(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Mapping[str, Any] | None, content: str
    ) -> tuple[int, str]:
        headers = {**await self.credentials.headers(), "Accept": JSON}
        data = None
        if body is not None:
            headers["Content-Type"], data = content, json.dumps(body)
        try:
            async with self._session.request(
                method, f"{self.credentials.server.url}{path}", params=query, data=data, headers=headers
            ) as answer:
                return answer.status, await answer.text(errors="replace")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._dead(error) from error

    def _open(self) -> aiohttp.ClientSession:
        limits = aiohttp.ClientTimeout(total=self._seconds, connect=CONNECT_SECONDS, sock_connect=CONNECT_SECONDS)
        credentials = self.credentials
        return aiohttp.ClientSession(connector=credentials.connector(), timeout=limits, proxy=credentials.server.proxy)

    async def _again(self) -> None:
        """New connections for new credentials: a certificate is shown when one is opened."""
        await self._session.close()
        await self.credentials.ready()
        self._session = self._open()

    def _dead(self, error: BaseException) -> ClusterUnavailable:
        if isinstance(error, TimeoutError):
            limit = CONNECT_SECONDS if isinstance(error, aiohttp.ConnectionTimeoutError) else self._seconds
            return ClusterUnavailable(f"the API server of {self.where} does not answer within {limit:.0f} s")
        return ClusterUnavailable(f"the API server of {self.where} cannot be reached: {why(error)}")

    def _read(self, status: int, text: str) -> Tree:
        try:
            tree = json.loads(text)
        except ValueError:
            tree = None
        if not isinstance(tree, dict) or "kind" not in tree:
            said = excerpt(text.encode())
            raise ClusterUnavailable(f"what answers at {self.where} is no API server: HTTP {status}, {said}")
        if status >= 400:
            raise self._refusal(status, tree)
        return tree

    def _refusal(self, status: int, tree: Tree) -> ClusterError:
        message = str(tree.get("message") or tree.get("reason") or f"HTTP {status}")
        if status == 401:
            text = f"the API server of {self.where} does not take the credentials: the login has expired or is no good"
            return LoginFailed(f"{text} (it says {message!r}); log in again, as with any kubectl command")
        if status == 403:
            return Forbidden(f"the API server of {self.where} does not allow it: {message}")
        if status == 404:
            return ObjectMissing(message)
        return ClusterRefused(message, status)


def _endless() -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS, sock_connect=CONNECT_SECONDS)


def services_path(namespace: str | None, name: str = "", sub: str = "") -> str:
    """Where the EmbeddingServices of a namespace (None: of all), or one of them, are."""
    inside = f"/namespaces/{namespace}" if namespace else ""
    return "/".join(part for part in (f"{SERVICES}{inside}/{PLURAL}", name, sub) if part)
