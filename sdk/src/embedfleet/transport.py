"""HTTP: one attempt at a time, over one pool of connections."""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

import aiohttp

from embedfleet import answers
from embedfleet.answers import Answered
from embedfleet.errors import ClientClosed, InputError, ProtocolError, ServiceUnavailable
from embedfleet.retry import Kind
from embedfleet.sockets import IDLE_SECONDS, why
from embedfleet.way import Abandonable, Direct, Way
from embedfleet.wire import JSON, NDJSON, NPY, Failure, ModelCard, Rows, RowsReader, excerpt, read_failure, read_models

T = TypeVar("T")

CONNECT_SECONDS = 10
PROBE_LIMIT_SECONDS = 5.0
SILENCE_SECONDS = 300.0
"""Longest without a byte from a server that does not say how long it takes for an answer at most."""
MARGIN_SECONDS = IDLE_SECONDS
"""Longest beyond what the server says, and for what it answers at once: the rest of a body on its way, a busy event
loop. Not less than an idle connection is kept: once a server was silent for so long, none that is older is left, and
the next attempt goes by a new one, which may lead to another pod."""

_LONGEST_ERROR = 1_048_576
_UNREACHABLE = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError)
_NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
_HOPELESS = (aiohttp.ClientSSLError, aiohttp.InvalidURL)


class AttemptFailed(Exception):
    """One attempt without rows: an error answer, or none at all. Ours alone; the caller never sees it.

    `sent` tells whether the request may have reached a server.
    """

    def __init__(self, failure: Failure | None, why: str, *, sent: bool = True) -> None:
        super().__init__(why)
        self.failure = failure
        self.sent = sent

    @property
    def kind(self) -> Kind:
        """What it means for another try."""
        if self.failure is None:
            return Kind.LOST if self.sent else Kind.AWAY
        return self.failure.kind


def longest_silence(cards: Sequence[ModelCard]) -> float:
    """Seconds without a byte after which an attempt is lost: what the server gives itself, and a margin."""
    told = [card.item_timeout_seconds for card in cards if card.item_timeout_seconds is not None]
    return max(told) + MARGIN_SECONDS if told else SILENCE_SECONDS


class Transport:
    """The connections to one server; belongs to the event loop of its first use."""

    def __init__(self, url: str, api_key: str | None, way: Way | None = None) -> None:
        self.url = url
        self._way: Way = way or Direct(url, api_key)
        self._session: aiohttp.ClientSession | None = None
        self._home: tuple[int, asyncio.AbstractEventLoop] | None = None
        self._closed = False
        self._silence = SILENCE_SECONDS

    async def post(
        self, body: bytes, count: int, place: Callable[[int], Rows], more: Mapping[str, str] | None = None
    ) -> Answered:
        """One attempt at the vectors of `count` texts, written into `place(d)`; `AttemptFailed` when there are none.

        Rows of inputs that the answer sets aside are NaN. `more` are further headers.
        """
        headers = {"Content-Type": JSON, "Accept": NPY, "X-Embedfleet-Partial": "true", **(more or {})}

        async def once() -> Answered:
            async with self._asked("POST", "/v1/embeddings", headers, data=body) as answer:
                told = answers.read(answer.headers)
                reader = RowsReader(count, place)
                await self._read(answer, reader)
                return _complete(told, reader.finish([error.index for error in told.errors], told.unnamed))

        return await self._let_in(once)

    async def ask(
        self, path: str, body: bytes, accept: str, more: Mapping[str, str] | None = None
    ) -> tuple[Answered, bytes]:
        """One attempt at a POST whose answer is of the type `accept`: what its headers tell, and its body."""
        headers = {"Content-Type": JSON, "Accept": accept, **(more or {})}

        async def once() -> tuple[Answered, bytes]:
            async with self._asked("POST", path, headers, data=body) as answer:
                if answer.content_type != accept:
                    raise await self._strange(answer)
                return answers.read(answer.headers), await answer.read()

        return await self._let_in(once)

    async def lines(self, path: str, body: bytes) -> list[bytes]:
        """One attempt at an answer of JSON lines; one whose last line is an error is an attempt that failed."""
        return (await self._whole("POST", path, body)).splitlines()

    async def read(self, path: str) -> bytes:
        """One attempt at an answer of JSON."""
        return await self._whole("GET", path)

    async def models(self, seconds: float | None = None) -> tuple[ModelCard, ...]:
        """One attempt at the service's models, within `seconds`; what they say of limits holds from then on."""

        async def once() -> tuple[ModelCard, ...]:
            async with self._asked("GET", "/v1/models", {}, timeout=_limits(MARGIN_SECONDS, seconds)) as answer:
                return read_models(await answer.read(), self.url)

        return self.learn(await self._let_in(once))

    def learn(self, cards: tuple[ModelCard, ...]) -> tuple[ModelCard, ...]:
        """Wait for answers as long as the server of these models says it takes; gives them back."""
        self._silence = longest_silence(cards)
        return cards

    async def answers(self) -> bool:
        """Whether a server that takes requests answers at all; asked without a body."""
        try:
            await self.models(PROBE_LIMIT_SECONDS)
        except AttemptFailed as failed:
            return failed.kind not in (Kind.AWAY, Kind.LOST)
        except (ProtocolError, ServiceUnavailable):
            return True  # the next attempt tells what is wrong there
        return True

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

    async def _whole(self, method: str, path: str, body: bytes | None = None) -> bytes:
        headers = {"Content-Type": JSON, "Accept": NDJSON}

        async def once() -> bytes:
            async with self._asked(method, path, headers, data=body) as answer:
                return await answer.read()

        told = await self._let_in(once)
        last = told.rstrip().rpartition(b"\n")[2]
        if last.startswith(b'{"error":'):
            raise AttemptFailed(read_failure(500, {}, last), "the answer ends with an error")
        return told

    async def _let_in(self, once: Callable[[], Awaitable[T]]) -> T:
        """`once()`, again with new credentials when what stands before the server no longer takes the old ones."""
        try:
            return await once()
        except AttemptFailed as failed:
            if not _unknown_on_the_way(failed.failure) or not await self._way.renew():
                raise
        return await once()

    @asynccontextmanager
    async def _asked(
        self, method: str, path: str, headers: Mapping[str, str], **options: Any
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """The answer with status 200; any other, and none, as an error."""
        shown = {**headers, **await self._way.headers()}
        asked = {"headers": shown, "allow_redirects": False, "timeout": _limits(self._silence), **options}
        try:
            async with self._open().request(method, self.url + path, **asked) as answer:
                if answer.status != 200:
                    raise AttemptFailed(await _failure(answer), f"HTTP {answer.status}")
                yield answer
        except _HOPELESS as error:
            raise ServiceUnavailable(f"no connection to {self.url}: {why(error)}") from error
        except _UNREACHABLE as error:
            words = _silent(asked["timeout"]) if isinstance(error, aiohttp.SocketTimeoutError) else why(error)
            raise AttemptFailed(None, words, sent=not isinstance(error, _NOT_SENT)) from error

    async def _read(self, answer: aiohttp.ClientResponse, reader: RowsReader) -> None:
        if answer.content_type != NPY:
            raise await self._strange(answer)
        async for data in answer.content.iter_any():
            reader.feed(data)

    async def _strange(self, answer: aiohttp.ClientResponse) -> ProtocolError:
        start = excerpt(await answer.content.read(1024))
        return ProtocolError(f"{self.url} does not answer like an embedfleet server: {answer.content_type}, {start}")

    def _open(self) -> aiohttp.ClientSession:
        if self._closed:
            raise ClientClosed("the client is closed")
        here = (os.getpid(), asyncio.get_running_loop())
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=self._way.connector(), proxy=self._way.proxy)
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


def _complete(told: Answered, bad: Sequence[int]) -> Answered:
    """`told` with an error for each row that is NaN, whether or not the header had room for its reason."""
    named = {error.index for error in told.errors}
    more = [InputError(i, "not_told", "the server set it aside, with too many others to say why") for i in bad]
    return replace(told, errors=(*told.errors, *(error for error in more if error.index not in named)))


def _limits(silence: float, whole: float | None = None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=whole, sock_connect=CONNECT_SECONDS, sock_read=silence)


def _silent(limits: aiohttp.ClientTimeout) -> str:
    return f"it was silent for {limits.sock_read:g} s"
