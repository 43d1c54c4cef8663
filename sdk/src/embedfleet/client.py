"""The client: `AsyncService` is the core, `Service` its synchronous twin on the portal's loop."""

import asyncio
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np

from embedfleet import stream
from embedfleet.attempts import Attempts, Timing
from embedfleet.card import service_card
from embedfleet.errors import ClientClosed, TimedOut
from embedfleet.explained import Journey
from embedfleet.gate import Gate, Place
from embedfleet.managing import AsyncManaging, Managing
from embedfleet.portal import Caller, Portal, portal
from embedfleet.progress import Done, Progress, reporter
from embedfleet.transport import Answered, AttemptFailed, Transport
from embedfleet.way import Way
from embedfleet.wire import InputType, ModelCard, Options, Rows, Vectors, request_body

T = TypeVar("T")

Ask = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Has some work done in the caller's thread."""


@dataclass(frozen=True, slots=True)
class ServiceInfo:
    """What the client knows of its service: its name (None until it has answered), address and models."""

    name: str | None
    url: str
    models: tuple[ModelCard, ...]


class AsyncService(AsyncManaging):
    """A service, for `async` code; belongs to the event loop of its first use. `connect_async` makes one.

    Any number of calls may run at once: they share the connections and one limit of requests in flight.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        model: str | None = None,
        timing: Timing | None = None,
        way: Way | None = None,
        journey: Journey | None = None,
    ) -> None:
        self.url = url
        self.model = model
        self.route = journey or Journey()
        self._transport = Transport(url, api_key, way)
        self._gate = Gate(most=way.most_requests if way is not None else None)
        self._attempts = Attempts(url, self._gate, timing or Timing())
        self._cards: tuple[ModelCard, ...] | None = None
        if self.route.cards:
            self._remember(self.route.cards)

    async def embed(
        self,
        texts: str | Iterable[str],
        *,
        model: str | None = None,
        input_type: InputType | None = None,
        dimensions: int | None = None,
        progress: Progress = None,
        timeout: float | None = None,  # noqa: ASYNC109  # the SDK's own word; `asyncio.timeout` works as well
    ) -> Vectors:
        """Vectors of `texts`, in their order.

        Args:
            texts: one str, or any iterable of them; read lazily, a few requests ahead.
            model: name of a model of the service; default the one connected to, else the service's own default.
            input_type: "query" or "document", for models that put a prompt before each.
            dimensions: shorter vectors, where the model was trained for them.
            progress: True: a bar; False: none; None: a bar where somebody looks; or a function of (done, total).
            timeout: seconds for the whole call. None: as long as the server makes progress.

        Returns:
            float32, C-contiguous: (d,) for a str, (n, d) for an iterable, (0, d) for an empty one.

        Raises:
            BadInput: texts that cannot be embedded, with their places.
            RequestRejected: an unknown model, dimensions it cannot give.
            ServiceUnavailable: no answer in spite of retries.
            ServerFailed: the server failed on it, three times.
            TimedOut: after `timeout` seconds.
            ProtocolError: an answer that is broken.
        """
        options = Options(model or self.model, input_type, dimensions)
        with reporter(progress, _total(texts)) as done:
            return await self._embed(texts, options, timeout, _here, done)

    async def embed_stream(
        self,
        texts: Iterable[str],
        *,
        model: str | None = None,
        input_type: InputType | None = None,
        dimensions: int | None = None,
    ) -> AsyncGenerator[Rows, None]:
        """Vectors of `texts` as arrays of shape (k, d), in order, in memory that does not grow with their number.

        k is up to the client; no text, no array. Arguments and errors are those of `embed`.
        """
        options = Options(model or self.model, input_type, dimensions)
        async with aclosing(self._stream(texts, options, _here)) as arrays:
            async for rows in arrays:
                yield rows

    async def models(self) -> tuple[ModelCard, ...]:
        """The service's models as they are now."""
        cards = await self._attempts.until_answered(self._transport.models, Place(0, 0))
        return self._remember(cards)

    @property
    def info(self) -> ServiceInfo:
        """What is known since the last `models()`; `connect_async` asks once."""
        return _info(self.url, self._cards or ())

    async def verify(self, seconds: float) -> tuple[ModelCard, ...]:
        """The models, asked for once and within `seconds`; `ServiceUnavailable` or `ProtocolError` otherwise."""
        try:
            return self._remember(await self._transport.models(seconds))
        except AttemptFailed as failed:
            raise self._attempts.error(failed, 1) from failed.__cause__

    async def close(self) -> None:
        """Close the connections; calls under way fail."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return _shown("AsyncService", self)

    def _repr_html_(self) -> str:
        return service_card(self.info.name, self.info.models, self.route, self.url)

    def _remember(self, cards: tuple[ModelCard, ...]) -> tuple[ModelCard, ...]:
        self._cards = cards
        self._gate.room = min((card.max_inputs for card in cards), default=None)
        return cards

    async def _embed(
        self, texts: str | Iterable[str], options: Options, seconds: float | None, ask: Ask, done: Done
    ) -> Vectors:
        try:
            async with asyncio.timeout(seconds) as limit:
                if isinstance(texts, str):
                    return await self._one(texts, options)
                return await self._many(texts, options, ask, done)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise TimedOut(f"{self.url} did not give all vectors within {seconds} s") from error

    async def _one(self, text: str, options: Options) -> Vectors:
        result, chunk = stream.Result(1), stream.Chunk(0, [text])
        where = await self._gate.enter(1)
        try:
            await self._chunk(chunk, where, lambda d: result.place(chunk, d), options, result)
        finally:
            self._gate.leave(where)
        result.counted(1)
        rows = result.rows()
        assert rows is not None
        vector: Vectors = rows[0]
        return vector

    async def _many(self, texts: Iterable[str], options: Options, ask: Ask, done: Done) -> Vectors:
        stream.check(texts)
        result = stream.Result(stream.length(texts))
        pull = await self._puller(texts, ask)
        await stream.run(pull, self._into(result, options), self._gate, result, done)
        rows = result.rows()
        return rows if rows is not None else np.empty((0, await self._dimensions(options)), np.float32)

    async def _stream(self, texts: Iterable[str], options: Options, ask: Ask) -> AsyncGenerator[Rows, None]:
        result = stream.Result(None)
        pull = await self._puller(texts, ask)
        async with aclosing(stream.ordered(pull, self._into(result, options), self._gate, result)) as arrays:
            async for rows in arrays:
                yield rows

    async def _puller(self, texts: Iterable[str], ask: Ask) -> stream.Pull:
        chunks = stream.split(texts, min(await self._most_inputs(), stream.MAX_INPUTS))
        return lambda: ask(lambda: next(chunks, None))

    def _into(self, result: stream.Result, options: Options) -> stream.Embed:
        async def embed(chunk: stream.Chunk, where: Place, place: Callable[[int], Rows]) -> None:
            await self._chunk(chunk, where, place, options, result)

        return embed

    async def _chunk(
        self, chunk: stream.Chunk, where: Place, place: Callable[[int], Rows], options: Options, result: stream.Result
    ) -> None:
        body = request_body(chunk.texts, options, chunk.start)

        async def post() -> Answered:
            return await self._transport.post(body, len(chunk.texts), place)

        try:
            answered = await self._attempts.until_answered(post, where, chunk.start, may_split=len(chunk.texts) > 1)
        except AttemptFailed:  # larger than the server could ever take: the halves may not be
            for half, part in stream.halves(chunk, place):
                await self._chunk(half, where, part, options, result)
            return
        result.made_by(answered.fingerprint)

    async def _most_inputs(self) -> int:
        cards = self._cards if self._cards is not None else await self.models()
        return min((card.max_inputs for card in cards), default=stream.MAX_INPUTS)

    async def _dimensions(self, options: Options) -> int:
        """Length of the vectors, asked from the model itself where its card does not know (it is not loaded yet)."""
        if options.dimensions is not None:
            return options.dimensions
        for card in self._cards or ():
            if card.dimensions and (card.name == options.model or (options.model is None and card.default)):
                return card.dimensions
        return len(await self._one("a", options))


class Service(Managing):
    """A service, for notebooks and scripts. `connect` makes one; safe to use from many threads and after a fork.

    Ctrl-C during a call cancels its requests and leaves the service usable.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        model: str | None = None,
        timing: Timing | None = None,
        way: Way | None = None,
        journey: Journey | None = None,
    ) -> None:
        self.url = url
        self.model = model
        self.route = route = journey or Journey()
        self._make: Callable[[], AsyncService] = lambda: AsyncService(
            url, api_key=api_key, model=model, timing=timing, way=way, journey=route
        )
        self._cores: dict[Portal, AsyncService] = {}
        self._closed = False

    def embed(
        self,
        texts: str | Iterable[str],
        *,
        model: str | None = None,
        input_type: InputType | None = None,
        dimensions: int | None = None,
        progress: Progress = None,
        timeout: float | None = None,
    ) -> Vectors:
        """Vectors of `texts`, in their order; see `AsyncService.embed`, of which this is the twin.

        The iterable is read, and progress drawn, by the calling thread.
        """
        options = Options(model or self.model, input_type, dimensions)
        with reporter(progress, _total(texts)) as done:
            return self._run(
                lambda core, caller: core._embed(
                    texts, options, timeout, caller.ask, lambda count: caller.tell(lambda: done(count))
                )
            )

    def embed_stream(
        self,
        texts: Iterable[str],
        *,
        model: str | None = None,
        input_type: InputType | None = None,
        dimensions: int | None = None,
    ) -> Iterator[Rows]:
        """Vectors of `texts` as arrays of shape (k, d), in order, in memory that does not grow with their number.

        The iterable is read by the calling thread, some requests ahead of what was taken from here.
        """
        options = Options(model or self.model, input_type, dimensions)
        callers: list[Caller] = []  # the caller of the step under way, since each step is a run of its own
        arrays = self._core(portal())._stream(texts, options, lambda work: callers[0].ask(work))  # noqa: PLW0108

        async def step(caller: Caller) -> Rows | None:
            callers[:] = [caller]
            return await anext(arrays, None)

        try:
            while (rows := portal().run(step)) is not None:
                yield rows
        finally:
            with suppress(ClientClosed):
                portal().run(lambda _: _closed(arrays))

    def models(self) -> tuple[ModelCard, ...]:
        """The service's models as they are now."""
        return self._run(lambda core, _: core.models())

    def verify(self, seconds: float) -> tuple[ModelCard, ...]:
        """The models, asked for once and within `seconds`; `ServiceUnavailable` or `ProtocolError` otherwise."""
        return self._run(lambda core, _: core.verify(seconds))

    @property
    def info(self) -> ServiceInfo:
        """What is known since the last `models()`; `connect` asks once."""
        known = [core.info for core in self._cores.values() if core.info.models]
        return known[-1] if known else _info(self.url, self.route.cards)

    def close(self) -> None:
        """Close the connections; calls under way in other threads fail."""
        if not self._closed and self._cores:
            self._run(lambda core, _: core.close())
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return _shown("Service", self)

    def _repr_html_(self) -> str:
        return service_card(self.info.name, self.info.models, self.route, self.url)

    def _run(self, work: Callable[[AsyncService, Caller], Coroutine[Any, Any, T]]) -> T:
        door = portal()
        core = self._core(door)
        return door.run(lambda caller: work(core, caller))

    def _core(self, door: Portal) -> AsyncService:
        core = self._cores.get(door)
        if core is not None:
            return core
        for inherited in self._cores.values():  # a forked child: the connections are the parent's
            inherited._transport.abandon()
        made = self._make()
        core = self._cores.setdefault(door, made)  # one of several threads wins; the others' had no connection yet
        if core is made:
            door.keep(core.close)
            closing = weakref.finalize(self, door.forget, core.close)
            closing.atexit = False  # the portal closes what is open then
        return core


async def _closed(arrays: AsyncGenerator[Rows, None]) -> None:
    await arrays.aclose()


async def _here(work: Callable[[], T]) -> T:
    return work()


def _info(url: str, cards: tuple[ModelCard, ...]) -> ServiceInfo:
    return ServiceInfo(cards[0].service if cards else None, url, cards)


def _total(texts: object) -> int | None:
    return 1 if isinstance(texts, str) else stream.length(texts)


def _shown(kind: str, service: AsyncService | Service) -> str:
    info, model = service.info, service.model
    chosen = f", model={model!r}" if model else ""
    models = ", ".join(each.name for each in info.models)
    taken = service.route.taken
    by = f" by {taken.route}" if taken is not None else ""
    return f"<{kind} {info.name or '?'!r} at {info.url}{by}{chosen}{f'; models: {models}' if models else ''}>"
