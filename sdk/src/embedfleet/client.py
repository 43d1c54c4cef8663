"""The synchronous client: `AsyncService` run on the portal's loop, in a thread of its own."""

import os
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Iterator
from contextlib import closing, suppress
from typing import Any, Literal, Self, TypeVar, overload

from embedfleet import shards
from embedfleet.async_client import (
    AsyncService,
    ServiceInfo,
    Wanted,
    here,
    shown,
    stream_errors,
    total,
    warn,
)
from embedfleet.attempts import Timing
from embedfleet.cache import CacheArgument
from embedfleet.card import service_card
from embedfleet.embedding import Ask, Call, OnError
from embedfleet.errors import ClientClosed
from embedfleet.explained import Journey
from embedfleet.managing import Managing
from embedfleet.pipelines import Pipeline, PipelineCard
from embedfleet.portal import Caller, Portal, portal
from embedfleet.progress import Progress, reporter
from embedfleet.results import EmbedResult
from embedfleet.shard_formats import ShardFormat
from embedfleet.shards import SHARD_ROWS, Written
from embedfleet.sync_tasks import SyncTasks
from embedfleet.way import Way
from embedfleet.wire import InputType, ModelCard, Options, Rows, Vectors

__all__ = ["AsyncService", "Service", "ServiceInfo"]

T = TypeVar("T")


class Service(SyncTasks, Managing):
    """A service, for notebooks and scripts. `connect` makes one; safe to use from many threads and after a fork.

    Ctrl-C during a call cancels its requests and leaves the service usable. `cache` is what calls use that do not say
    otherwise: True, a path, a `Cache`; none by default.
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
        self.route = route = journey or Journey()
        self._make: Callable[[], AsyncService] = lambda: AsyncService(
            url, api_key=api_key, model=model, timing=timing, way=way, journey=route
        )
        self._cores: dict[Portal, AsyncService] = {}
        self._closed = False

    @overload
    def embed(
        self, texts: str | Iterable[str], *, model: str | None = None, input_type: InputType | None = None,
        dimensions: int | None = None, progress: Progress = None, timeout: float | None = None,
        on_error: Literal["raise", "nan"] = "raise", with_info: Literal[False] = False, cache: CacheArgument = None,
    ) -> Vectors: ...  # fmt: skip

    @overload
    def embed(
        self, texts: str | Iterable[str], *, model: str | None = None, input_type: InputType | None = None,
        dimensions: int | None = None, progress: Progress = None, timeout: float | None = None,
        on_error: OnError = "raise", with_info: Literal[True], cache: CacheArgument = None,
    ) -> EmbedResult: ...  # fmt: skip

    @overload
    def embed(
        self, texts: str | Iterable[str], *, model: str | None = None, input_type: InputType | None = None,
        dimensions: int | None = None, progress: Progress = None, timeout: float | None = None,
        on_error: Literal["collect"], with_info: bool = False, cache: CacheArgument = None,
    ) -> EmbedResult: ...  # fmt: skip

    def embed(
        self,
        texts: str | Iterable[str],
        *,
        model: str | None = None,
        input_type: InputType | None = None,
        dimensions: int | None = None,
        progress: Progress = None,
        timeout: float | None = None,
        on_error: OnError = "raise",
        with_info: bool = False,
        cache: CacheArgument = None,
    ) -> Vectors | EmbedResult:
        """Vectors of `texts`, in their order; see `AsyncService.embed`, of which this is the twin.

        The iterable is read, and progress drawn, by the calling thread.
        """
        options = Options(model or self.model, input_type, dimensions)
        wanted = Wanted(options, on_error, with_info, self._cache(cache), timeout)
        with reporter(progress, total(texts)) as done:
            made = self._run(
                lambda core, caller: core._embed(
                    texts, wanted, caller.ask, lambda count: caller.tell(lambda: done(count))
                )
            )
        return made.told(texts, wanted)

    def embed_stream(
        self,
        texts: Iterable[str],
        *,
        model: str | None = None,
        input_type: InputType | None = None,
        dimensions: int | None = None,
        on_error: Literal["raise", "nan"] = "raise",
        cache: CacheArgument = None,
    ) -> Iterator[Rows]:
        """Vectors of `texts` as arrays of shape (k, d), in order, in memory that does not grow with their number.

        The iterable is read by the calling thread, some requests ahead of what was taken from here. Arguments and
        errors are those of `embed`.
        """
        options = Options(model or self.model, input_type, dimensions)
        wanted = Wanted(options, stream_errors(on_error), cache=self._cache(cache))
        call = self._core(portal())._call(wanted)
        with closing(self._steps(call, texts)) as arrays:
            for rows in arrays:
                warn(call.tally.warnings)
                yield rows

    def embed_to(
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
        """Vectors of `texts` into the directory `path`; `embedfleet.load(path)` gives them back.

        Stopped in whatever way, the same call goes on behind the last whole shard. It then reads the texts of the
        whole shards again, and refuses when they are others.

        Args:
            path: a directory, made where it is not; nothing but the run's own files is touched in it.
            texts: any iterable of str, which a later call can read from its beginning again.
            format: "npy", or "arrow" or "parquet" (a column `vector`), for which pyarrow must be installed.
            shard_rows: rows of one file, of which one is held in memory; what a stopped run computes again at most.
            on_error: "collect" notes the texts without a vector in the manifest and in what is returned.
            model: see `embed`, as for the other arguments.
            input_type: see `embed`.
            dimensions: see `embed`.
            progress: see `embed`.
            cache: see `embed`.

        Raises:
            ResumeRefused: what is there is of other texts, another model or other options, or being written.
            OSError: the disk is full, or refuses; the whole shards stay valid.
            BadInput: texts that cannot be embedded; and all that `embed` raises.
        """
        wanted = Wanted(Options(model or self.model, input_type, dimensions), on_error, cache=self._cache(cache))
        opened = shards.writing(
            path, texts, wanted.options, kind=format, shard_rows=shard_rows, note_errors=on_error == "collect"
        )
        with opened as (writer, rest), reporter(progress, total(texts)) as done:
            done(writer.resumed)
            call = self._core(portal())._call(wanted, writer)
            self._run(lambda core, _: core._check(writer, wanted))
            with closing(self._steps(call, rest)) as arrays:
                for rows in arrays:
                    writer.add(rows)
                    warn(call.tally.warnings)
                    warn(writer.warnings())
                    done(len(rows))
            writer.finish(self._run(lambda core, _: core._width(writer, call)))
            return writer.written()

    def models(self) -> tuple[ModelCard, ...]:
        """The service's models as they are now."""
        return self._run(lambda core, _: core.models())

    def model_info(self, model: str | None = None) -> ModelCard:
        """What one model is now; see `AsyncService.model_info`."""
        return self._run(lambda core, _: core.model_info(model or self.model))

    def verify(self, seconds: float) -> tuple[ModelCard, ...]:
        """The models, asked for once and within `seconds`; `ServiceUnavailable` or `ProtocolError` otherwise."""
        return self._run(lambda core, _: core.verify(seconds))

    @property
    def info(self) -> ServiceInfo:
        """What is known since the last `models()`; `connect` asks once."""
        known = [core.info for core in self._cores.values() if core.info.models]
        return known[-1] if known else _known(self.url, self.route.cards)

    def pipeline(self, name: str) -> Pipeline:
        """The pipeline of that name; whether there is one shows when it is run."""
        return Pipeline(lambda: self._core(portal()), name)

    @property
    def pipelines(self) -> tuple[PipelineCard, ...]:
        """The service's pipelines, asked for now; and what keeps them from running, if anything does."""
        return self._run(lambda core, _: core.pipelines())

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
        return shown("Service", self.info, self.model, self.route)

    def _repr_html_(self) -> str:
        return service_card(self.info.name, self.info.models, self.route, self.url, self._recent())

    async def _awaited(
        self, texts: str | list[str], *, model: str | None, input_type: InputType | None, dimensions: int | None
    ) -> Vectors:
        """`embed`, awaited on any event loop and several in turn, which an `AsyncService` could not be."""
        door = portal()
        wanted = Wanted(Options(model or self.model, input_type, dimensions), cache=self.cache)
        core = self._core(door)
        made = await door.awaited(lambda: core._embed(texts, wanted, here, lambda _: None))
        warn(made.tally.warnings)
        return made.rows

    def _recent(self) -> list[float]:
        return [seconds for core in self._cores.values() for seconds in core._attempts.recent]

    def _cache(self, given: CacheArgument) -> CacheArgument:
        return self.cache if given is None else given

    def _steps(self, call: Call, texts: Iterable[str]) -> Generator[Rows, None, None]:
        """The arrays of a call, each step a run of its own; the iterable is read by whichever thread takes it."""
        callers: list[Caller] = []
        ask: Ask = lambda work: callers[0].ask(work)  # noqa: E731, PLW0108  # of the caller of the step under way
        arrays = call.arrays(texts, ask)

        async def step(caller: Caller) -> Rows | None:
            callers[:] = [caller]
            return await anext(arrays, None)

        try:
            while (rows := portal().run(step)) is not None:
                yield rows
        finally:
            with suppress(ClientClosed):
                portal().run(lambda _: _closed(arrays))

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


def _known(url: str, cards: tuple[ModelCard, ...]) -> ServiceInfo:
    return ServiceInfo(cards[0].service if cards else None, url, cards)


async def _closed(arrays: AsyncGenerator[Rows, None]) -> None:
    await arrays.aclose()
