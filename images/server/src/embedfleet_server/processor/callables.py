"""The user's callable, as the dispatcher sees it: a forward over the items of a batch."""

import asyncio
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from embedfleet_server.engine.errors import BatchFailed
from embedfleet_server.processor.pool import DaemonPool, Outcome
from embedfleet_server.processor.request import Payload
from embedfleet_server.processor.stacking import Buffers, by_kind, kind_of

ProcessFunc = Callable[[Any], Any]
"""Takes a batch (array of shape (n, ...), or list of n items) and gives n results in its order; may be a coroutine
function."""


class Raised(Exception):
    """Carries what the callable raised where Python cannot: StopIteration, SystemExit or the like through a future."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"process_func raised {error!r}")
        self.error = error


class CallableWorkers:
    """Calls the callable: a plain one in threads, a coroutine function as a task on the loop."""

    def __init__(self, func: ProcessFunc, max_workers: int) -> None:
        if not callable(func):
            raise TypeError(f"process_func is {func!r}: it must be callable")
        self._func = func
        self.is_async = is_coroutine_function(func)
        self.pool = DaemonPool(max_workers, "batch-processor")
        self._buffers = Buffers(max_workers)
        self._calls: set[asyncio.Task[Outcome]] = set()

    async def forward(self, model: Any, batch: Sequence[Payload], /) -> list[Any]:
        """Results of the batch in its order; items whose futures were cancelled are not handed over (None)."""
        wanted = [at for at, (request, _) in enumerate(batch) if not request.cancelled()]
        items = [batch[at][1] for at in wanted]
        results: list[Any] = [None] * len(batch)
        for positions in by_kind(items).values():
            group = [items[position] for position in positions]
            for position, result in zip(positions, await self._results(group), strict=True):
                results[wanted[position]] = result
        return results

    async def close(self, patience: float) -> None:
        """Give calls that nobody awaits any longer `patience` seconds to end."""
        if self._calls:
            await asyncio.wait(self._calls, timeout=patience)

    async def _results(self, group: list[Any]) -> list[Any]:
        """One call; raises what the callable raised. Cancelled, it cancels a task; a thread cannot be stopped."""
        call = asyncio.ensure_future(self._called(group) if self.is_async else self.pool.run(lambda: self._call(group)))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        try:
            await asyncio.wait([call])
        except asyncio.CancelledError:
            call.cancel()
            raise
        return _value(call.result())

    def _call(self, group: list[Any]) -> list[Any]:
        """In a thread: stack, call, check."""
        batch = self._batch(group)
        try:
            results = checked(self._func(batch), len(group))
        finally:
            self._done(batch)
        return results

    async def _called(self, group: list[Any]) -> Outcome:
        """On the loop: the same, as a task of its own, so that a cancellation within it is no one else's."""
        batch = None
        try:
            batch = self._batch(group)
            return Outcome(checked(await self._func(batch), len(group)))
        except BaseException as error:  # noqa: BLE001  # be it a cancellation: it belongs to the callers of this batch
            return Outcome(error=error)
        finally:
            self._done(batch)

    def _batch(self, group: list[Any]) -> Any:
        return self._buffers.stack(group) if kind_of(group[0]) is not None else group

    def _done(self, batch: Any) -> None:
        if batch is not None and not isinstance(batch, list):
            self._buffers.give_back(batch)


def is_coroutine_function(func: ProcessFunc) -> bool:
    """Whether a call gives a coroutine; also for partials and for objects with an `async __call__`."""
    while isinstance(func, functools.partial):
        func = func.func
    return inspect.iscoroutinefunction(func) or inspect.iscoroutinefunction(getattr(func, "__call__", None))  # noqa: B004


def checked(results: Any, count: int) -> list[Any]:
    """As a list; `BatchFailed` unless there are as many results as items, in an order."""
    if inspect.iscoroutine(results):
        results.close()  # unawaited, it would warn at some later time
        raise BatchFailed("process_func returned a coroutine: pass the coroutine function itself to start()")
    if not _is_sequence(results):
        raise BatchFailed(f"process_func returned a {type(results).__name__}; a sequence of {count} results was due")
    if len(results) != count:
        raise BatchFailed(f"process_func returned {len(results)} results for {count} items; as many were due")
    return list(results)


def _is_sequence(results: Any) -> bool:
    """Whether `results` has one entry after the other: not so text, sets, generators, and what is read by keys."""
    if isinstance(results, str | bytes | set | frozenset) or hasattr(results, "keys"):
        return False
    return hasattr(results, "__len__") and getattr(results, "shape", None) != ()


def _value(outcome: Outcome) -> list[Any]:
    error = outcome.error
    if error is None:
        return list(outcome.value)
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        raise error
    raise Raised(error)
