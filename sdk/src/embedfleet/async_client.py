"""The client for `async` code, which is the core of the synchronous one too."""

import asyncio
import os
import warnings
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, TypeVar, cast, overload

from embedfleet import chunks, environment, shards
from embedfleet.asking import Asker
from embedfleet.async_tasks import AsyncTasks
from embedfleet.attempts import Attempts, Timing
from embedfleet.cache import Cache, CacheArgument, cache_of
from embedfleet.card import service_card
from embedfleet.embedding import Ask, Call, Line, OnError
from embedfleet.errors import BadInput, ModelNotFound, TimedOut
from embedfleet.explained import Journey
from embedfleet.gate import Gate, Place
from embedfleet.managing import AsyncManaging
from embedfleet.pipelines import AsyncPipeline, PipelineCard, listed
from embedfleet.progress import Done, Progress, reporter
from embedfleet.results import EmbedResult
from embedfleet.shard_formats import ShardFormat
from embedfleet.shards import SHARD_ROWS, Written
from embedfleet.tally import Tally
from embedfleet.transport import AttemptFailed, Transport
from embedfleet.way import Way
from embedfleet.wire import InputType, ModelCard, Options, Rows, Vectors, card_of

T = TypeVar("T")
_ON_ERROR = ("raise", "nan", "collect")


@dataclass(frozen=True, slots=True)
class ServiceInfo:
    """What the client knows of its service: its name (None until it has answered), address and models."""

    name: str | None
    url: str
    models: tuple[ModelCard, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a call asks for, beside its texts."""

    options: Options
    on_error: OnError = "raise"
    with_info: bool = False
    cache: CacheArgument = None
    timeout: float | None = None

    def __post_init__(self) -> None:
        if self.on_error not in _ON_ERROR:
            raise BadInput(f"on_error is {self.on_error!r}; it must be one of {', '.join(_ON_ERROR)}")
        if self.timeout is not None and not self.timeout > 0:
            raise BadInput(f"timeout is {self.timeout}; it must be more than 0 seconds, or None")


@dataclass(frozen=True, slots=True)
class Made:
    """What a call gave: the vectors, what it counted, how long it took."""

    rows: Vectors
    tally: Tally
    seconds: float

    def told(self, texts: str | Iterable[str], wanted: Wanted) -> Vectors | EmbedResult:
        """As the caller wants it; called in the caller's thread, which is warned of what there is to warn of."""
        warn(self.tally.warnings)
        if not wanted.with_info and wanted.on_error != "collect":
            return self.rows
        given = [texts] if isinstance(texts, str) else chunks.kept(texts)
        return EmbedResult.of(self.rows, self.tally, self.seconds, given)


class AsyncService(AsyncTasks, AsyncManaging):
    """A service, for `async` code; belongs to the event loop of its first use. `connect_async` makes one.

    Any number of calls may run at once: they share the connections and one limit of requests in flight. `cache` is
    what calls use that do not say otherwise: True, a path, a `Cache`; none by default.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        model: str | None = None,
        cache: CacheArgument = None,
        timing: Timing | None = None,
        way: Way | None = None,
        journey: Journey | None = None,
    ) -> None:
        self.url = url
        self.model = model
        self.cache = cache
        self.route = journey or Journey()
        self._transport = Transport(url, api_key, way)
        self._gate = Gate(most=way.most_requests if way is not None else None)
        self._timing = timing or Timing()
        self._attempts = Attempts(url, self._gate, self._timing, self._transport.answers)
        self._line = Line(self._transport, self._gate, self._attempts, self._known)
        self._asker = Asker(self._line)
        self._cards: tuple[ModelCard, ...] | None = None
        self._caches: dict[Path, Cache] = {}
        if self.route.cards:
            self._remember(self.route.cards)

    @overload
    async def embed(
        self, texts: str | Iterable[str], *, model: str | None = None, input_type: InputType | None = None,
        dimensions: int | None = None, progress: Progress = None, timeout: float | None = None,  # noqa: ASYNC109
        on_error: Literal["raise", "nan"] = "raise", with_info: Literal[False] = False, cache: CacheArgument = None,
    ) -> Vectors: ...  # fmt: skip

    @overload
    async def embed(
        self, texts: str | Iterable[str], *, model: str | None = None, input_type: InputType | None = None,
        dimensions: int | None = None, progress: Progress = None, timeout: float | None = None,  # noqa: ASYNC109
        on_error: OnError = "raise", with_info: Literal[True], cache: CacheArgument = None,
    ) -> EmbedResult: ...  # fmt: skip

    @overload
    async def embed(
        self, texts: str | Iterable[str], *, model: str | None = None, input_type: InputType | None = None,
        dimensions: int | None = None, progress: Progress = None, timeout: float | None = None,  # noqa: ASYNC109
        on_error: Literal["collect"], with_info: bool = False, cache: CacheArgument = None,
    ) -> EmbedResult: ...  # fmt: skip

    async def embed(
        self,
        texts: str | Iterable[str],
        *,
        model: str | None = None,
        input_type: InputType | None = None,
        dimensions: int | None = None,
        progress: Progress = None,
        timeout: float | None = None,  # noqa: ASYNC109  # the SDK's own word; `asyncio.timeout` works as well
        on_error: OnError = "raise",
        with_info: bool = False,
        cache: CacheArgument = None,
    ) -> Vectors | EmbedResult:
        """Vectors of `texts`, in their order.

        Args:
            texts: one str, or any iterable of them; read lazily, a few requests ahead.
            model: name of a model of the service; default the one connected to, else the service's own default.
            input_type: "query" or "document", for models that put a prompt before each.
            dimensions: shorter vectors, where the model was trained for them.
            progress: True: a bar; False: none; None: a bar where somebody looks; or a function of (done, total).
            timeout: seconds for the whole call, told to the server too. None: as long as it makes progress.
            on_error: what becomes of texts that cannot be embedded: "raise" at the first; "nan": rows of NaN;
                "collect": rows of NaN, and an `EmbedResult` that lists them in `errors`.
            with_info: an `EmbedResult` rather than the bare array.
            cache: True, a path or a `Cache`: vectors that it has are not computed. None: as the client was made.

        Returns:
            float32, C-contiguous: (d,) for a str, (n, d) for an iterable, (0, d) for an empty one.

        Raises:
            BadInput: texts that cannot be embedded, with their places.
            RequestRejected: an unknown model, dimensions it cannot give.
            ServiceUnavailable: no answer in spite of retries.
            ServerFailed: the server failed on it, three times.
            TimedOut: after `timeout` seconds.
            ModelChanged: the model became another meanwhile.
            ProtocolError: an answer that is broken.
        """
        wanted = Wanted(self._options(model, input_type, dimensions), on_error, with_info, cache, timeout)
        with reporter(progress, total(texts)) as done:
            made = await self._embed(texts, wanted, here, done)
        return made.told(texts, wanted)

    async def embed_stream(
        self,
        texts: Iterable[str],
        *,
        model: str | None = None,
        input_type: InputType | None = None,
        dimensions: int | None = None,
        on_error: Literal["raise", "nan"] = "raise",
        cache: CacheArgument = None,
    ) -> AsyncGenerator[Rows, None]:
        """Vectors of `texts` as arrays of shape (k, d), in order, in memory that does not grow with their number.

        k is up to the client; no text, no array. Arguments and errors are those of `embed`.
        """
        wanted = Wanted(self._options(model, input_type, dimensions), stream_errors(on_error), cache=cache)
        call = self._call(wanted)
        async with aclosing(call.arrays(texts, here)) as arrays:
            async for rows in arrays:
                warn(call.tally.warnings)
                yield rows

    async def embed_to(
        self,
        path: str | os.PathLike[str],
        texts: Iterable[str],
        *,
        format: ShardFormat = "npy",  # noqa: A002  # the word for it
        shard_rows: int = SHARD_ROWS,
        model: str | None = None,
        input_type: InputType | None = None,
        dimensions: int | None = None,
        progress: Progress = None,
        on_error: OnError = "raise",
        cache: CacheArgument = None,
    ) -> Written:
        """Vectors of `texts` into the directory `path`; see `Service.embed_to`, of which this is the twin."""
        wanted = Wanted(self._options(model, input_type, dimensions), on_error, cache=cache)
        opened = shards.writing(
            path, texts, wanted.options, kind=format, shard_rows=shard_rows, note_errors=on_error == "collect"
        )
        with opened as (writer, rest), reporter(progress, total(texts)) as done:
            done(writer.resumed)
            call = self._call(wanted, writer)
            await self._check(writer, wanted)
            async with aclosing(call.arrays(rest, here)) as arrays:
                async for rows in arrays:
                    await asyncio.to_thread(writer.add, rows)
                    warn(call.tally.warnings)
                    warn(writer.warnings())
                    done(len(rows))
            await asyncio.to_thread(writer.finish, await self._width(writer, call))
            return writer.written()

    async def models(self) -> tuple[ModelCard, ...]:
        """The service's models as they are now."""
        cards = await self._attempts.until_answered(self._transport.models, Place(0, 0, held=False))
        return self._remember(cards)

    async def model_info(self, model: str | None = None) -> ModelCard:
        """What one model is now: task, dimensions, limits, fingerprint, state; default the client's own model.

        Raises `ModelNotFound`.
        """
        cards, name = await self.models(), model or self.model
        card = card_of(cards, name)
        if card is None:
            asked = f"model {name!r} does not exist" if name else "the service has no default model: name one"
            raise ModelNotFound(f"{asked}; {self.url} has: {', '.join(card.name for card in cards)}")
        return card

    @property
    def info(self) -> ServiceInfo:
        """What is known since the last `models()`; `connect_async` asks once."""
        cards = self._cards or ()
        return ServiceInfo(cards[0].service if cards else None, self.url, cards)

    async def verify(self, seconds: float) -> tuple[ModelCard, ...]:
        """The models, asked for once and within `seconds`; `ServiceUnavailable` or `ProtocolError` otherwise."""
        try:
            return self._remember(await self._transport.models(seconds))
        except AttemptFailed as failed:
            raise self._attempts.error(failed, 1) from failed.__cause__

    def pipeline(self, name: str) -> AsyncPipeline:
        """The pipeline of that name; whether there is one shows when it is run."""
        return AsyncPipeline(self, name)

    async def pipelines(self) -> tuple[PipelineCard, ...]:
        """The service's pipelines, and what keeps them from running, if anything does."""
        return await listed(self)

    async def close(self) -> None:
        """Close the connections; calls under way fail."""
        await self._transport.close()
        for cache in self._caches.values():
            cache.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return shown("AsyncService", self.info, self.model, self.route)

    def _repr_html_(self) -> str:
        return service_card(self.info.name, self.info.models, self.route, self.url, list(self._attempts.recent))

    def _options(self, model: str | None, input_type: InputType | None, dimensions: int | None) -> Options:
        return Options(model or self.model, input_type, dimensions)

    def _remember(self, cards: tuple[ModelCard, ...]) -> tuple[ModelCard, ...]:
        self._cards = self._transport.learn(cards)
        self._gate.room = min((card.max_inputs for card in cards), default=None)
        return cards

    async def _known(self, anew: bool) -> tuple[ModelCard, ...]:
        return self._cards if self._cards is not None and not anew else await self.models()

    def _call(self, wanted: Wanted, writer: shards.Writer | None = None) -> Call:
        call = Call(self._line, wanted.options, wanted.on_error, self._cache(wanted.cache))
        if writer is not None:
            call.first, call.tally = writer.resumed, writer.tally
        return call

    def _cache(self, given: CacheArgument) -> Cache | None:
        """The cache of a call; one file is opened once."""
        cache = cache_of(self.cache if given is None else given, environment.cache_file)
        if cache is None or isinstance(given, Cache) or isinstance(self.cache, Cache):
            return cache
        return self._caches.setdefault(cache.path, cache)

    async def _embed(self, texts: str | Iterable[str], wanted: Wanted, ask: Ask, done: Done) -> Made:
        call, began = self._call(wanted), self._timing.clock()
        try:
            async with asyncio.timeout(wanted.timeout) as limit:
                call.deadline = limit.when()
                rows = await call.one(texts) if isinstance(texts, str) else await call.many(texts, ask, done)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise TimedOut(f"{self.url} did not give all vectors within {wanted.timeout} s") from error
        vectors = rows[0] if isinstance(texts, str) else rows
        return Made(vectors, call.tally, self._timing.clock() - began)

    async def _check(self, writer: shards.Writer, wanted: Wanted) -> None:
        """Refuse to go on with another model before any text is sent to it."""
        if writer.resumed:
            card = card_of(await self.models(), wanted.options.model)
            writer.check(card.fingerprint if card is not None else None)

    async def _width(self, writer: shards.Writer, call: Call) -> int:
        return writer.manifest.dimensions or (await call.dimensions() if not writer.has_rows else 0)


async def here(work: Callable[[], T]) -> T:
    """Has `work()` done in this very thread: what `Ask` is to a caller on the loop."""
    return work()


def total(texts: object) -> int | None:
    """How many texts there are, where that can be told."""
    return 1 if isinstance(texts, str) else chunks.length(texts)


def stream_errors(on_error: str) -> Literal["raise", "nan"]:
    """`on_error` of a stream, which has no place to collect errors in."""
    if on_error not in ("raise", "nan"):
        raise BadInput(f"on_error is {on_error!r}; of a stream it must be 'raise' or 'nan'")
    return cast("Literal['raise', 'nan']", on_error)


def warn(messages: list[str]) -> None:
    """Warn of each once, at the caller's line."""
    for message in messages:
        warnings.warn(message, UserWarning, stacklevel=4)
    messages.clear()


def shown(kind: str, info: ServiceInfo, model: str | None, route: Journey) -> str:
    """The `repr` of a client."""
    name = repr(info.name or "?")
    chosen = f", model={model!r}" if model else ""
    models = ", ".join(card.name for card in info.models)
    by = f" by {route.taken.route}" if route.taken is not None else ""
    return f"<{kind} {name} at {info.url}{by}{chosen}{f'; models: {models}' if models else ''}>"
