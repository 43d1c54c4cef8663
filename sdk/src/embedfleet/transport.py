"""HTTP: one attempt at a time, over one pool of connections."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp

from embedfleet.errors import ClientClosed, ProtocolError, ServiceUnavailable
from embedfleet.retry import Kind
from embedfleet.way import Abandonable, Direct, Way
from embedfleet.wire import JSON, NPY, Failure, ModelCard, Rows, RowsReader, excerpt, read_failure, read_models

T = TypeVar("T")

CONNECT_SECONDS = 10
SILENCE_SECONDS = 300
"""Longest without a byte from the server; its own limit for an answer is 30 s unless the manifest says otherwise."""

_LONGEST_ERROR = 1_048_576
_UNREACHABLE = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError)
_HOPELESS = (aiohttp.ClientSSLError, aiohttp.InvalidURL)


class AttemptFailed(Exception):
    """One attempt without rows: an error answer, or none at all. Ours alone; the caller never sees it."""

    def __init__(self, failure: Failure | None, why: str) -> None:
        super().__init__(why)
        self.failure = failure

    @property
    def kind(self) -> Kind:
        """What it means for another try."""
        return Kind.AWAY if self.failure is None else self.failure.kind


@dataclass(frozen=True, slots=True)
class Answered:
    """What an answer says beside its rows."""

    queue_seconds: float
    fingerprint: str | None


class Transport:
    """The connections to one server; belongs to the event loop of its first use."""

    def __init__(self, url: str, api_key: str | None, way: Way | None = None) -> None:
        self.url = url
        self._way: Way = way or Direct(url, api_key)
        self._session: aiohttp.ClientSession | None = None
        self._home: tuple[int, asyncio.AbstractEventLoop] | None = None
        self._closed = False

    async def post(self, body: bytes, count: int, place: Callable[[int], Rows]) -> Answered:
        """One attempt at the vectors of `count` texts, written into `place(d)`; `AttemptFailed` when there are none."""
        return await self._let_in(lambda: self._post(body, count, place))

    async def models(self, seconds: float | None = None) -> tuple[ModelCard, ...]:
        """One attempt at the service's models, within `seconds`."""
        return await self._let_in(lambda: self._models(seconds))

    async def _let_in(self, once: Callable[[], Awaitable[T]]) -> T:
        """`once()`, again with new credentials when what stands before the server no longer takes the old ones."""
        try:
            return await once()
        except AttemptFailed as failed:
            if not _unknown_on_the_way(failed.failure) or not await self._way.renew():
                raise
        return await once()

    async def _post(self, body: bytes, count: int, place: Callable[[int], Rows]) -> Answered:
        headers = {"Content-Type": JSON, "Accept": NPY, **await self._way.headers()}
        try:
            async with self._open().post(
                f"{self.url}/v1/embeddings", data=body, headers=headers, allow_redirects=False
            ) as answer:
                if answer.status != 200:
                    raise AttemptFailed(await _failure(answer), f"HTTP {answer.status}")
                await self._read(answer, RowsReader(count, place))
                return _answered(answer.headers)
        except _HOPELESS as error:
            raise ServiceUnavailable(f"no connection to {self.url}: {_why(error)}") from error
        except _UNREACHABLE as error:
            raise AttemptFailed(None, _why(error)) from error

    async def _models(self, seconds: float | None) -> tuple[ModelCard, ...]:
        headers = await self._way.headers()
        limit = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS)
        try:
            async with self._open().get(
                f"{self.url}/v1/models", headers=headers, timeout=limit, allow_redirects=False
            ) as answer:
                if answer.status != 200:
                    raise AttemptFailed(await _failure(answer), f"HTTP {answer.status}")
                return read_models(await answer.read(), self.url)
        except _HOPELESS as error:
            raise ServiceUnavailable(f"no connection to {self.url}: {_why(error)}") from error
        except _UNREACHABLE as error:
            raise AttemptFailed(None, _why(error)) from error

    async def close(self) -> None:
        """Close the connections; safe to call again."""
        self._closed = True
        if self._session is not None and self._home is not None and self._home[0] == os.getpid():
            await self._session.close()

    def abandon(self) -> None:
        """Let go of connections that came along with a fork: they are the parent's, and so is the loop's selector."""
        if self._session is None or self._home is None or self._home[0] == os.getpid():
            return
        connector = self._session.connector
        self._session.detach()
        if connector is not None:
            # Its finalizer would take the parent's sockets out of the selector that parent and child share.
            connector._closed = True
            if isinstance(connector, Abandonable):
                connector.abandon()

    async def _read(self, answer: aiohttp.ClientResponse, reader: RowsReader) -> None:
        if answer.content_type != NPY:
            start = excerpt(await answer.content.read(1024))
            text = f"{self.url} does not answer like an embedfleet server: {answer.content_type}, {start}"
            raise ProtocolError(text)
        async for data in answer.content.iter_any():
            reader.feed(data)
        reader.finish()

    def _open(self) -> aiohttp.ClientSession:
        if self._closed:
            raise ClientClosed("the client is closed")
        here = (os.getpid(), asyncio.get_running_loop())
        if self._session is None:
            limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
            connector = self._way.connector()  # without limit: the gate bounds what is in flight
            self._session = aiohttp.ClientSession(connector=connector, timeout=limits, proxy=self._way.proxy)
            self._home = here
        if self._home != here:
            raise ClientClosed("an AsyncService belongs to the event loop of its first use; connect again in this one")
        return self._session


async def _failure(answer: aiohttp.ClientResponse) -> Failure:
    if 300 <= answer.status < 400:
        where = answer.headers.get("Location", "nowhere")
        return Failure(answer.status, f"a redirect to {where}; connect to that address if it is the right one")
    return read_failure(answer.status, answer.headers, await answer.content.read(_LONGEST_ERROR))


def _unknown_on_the_way(failure: Failure | None) -> bool:
    """Whether somebody other than the server itself asks for credentials."""
    return failure is not None and failure.status == 401 and failure.code is None


def _answered(headers: Mapping[str, Any]) -> Answered:
    try:
        queue = float(headers.get("X-Embedfleet-Queue-Milliseconds", 0)) / 1000
    except ValueError:
        queue = 0.0
    return Answered(queue, headers.get("X-Embedfleet-Fingerprint"))


def _why(error: BaseException) -> str:
    return str(error) or type(error).__name__
