"""The private loop thread under the synchronous client.

A thread of its own, so that `embed` works where a loop runs already (Jupyter) and from many threads at once. The
caller waits in short slices, since on some systems a wait without limit does not see Ctrl-C; while it waits it does
what only its own thread may: read the caller's iterable, draw progress.
"""

import asyncio
import atexit
import contextvars
import os
import queue
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from embedfleet.errors import ClientClosed

T = TypeVar("T")

_SLICE_SECONDS = 0.1
_CANCEL_SECONDS = 5.0

Job = Callable[[], None]


_calling: contextvars.ContextVar["Caller | None"] = contextvars.ContextVar("calling", default=None)


def tell_user(text: str) -> None:
    """Write `text` to standard error, from the thread that waits: Jupyter shows it then under the cell that runs."""

    def write() -> None:
        sys.stderr.write(text)
        sys.stderr.flush()

    caller = _calling.get()
    if caller is None:
        write()
    else:
        caller.tell(write)


class Caller:
    """The waiting thread, as its coroutine on the loop sees it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()

    async def ask(self, work: Callable[[], T]) -> T:
        """What `work()` gives, or raises, in the caller's thread."""
        answer: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(lambda: self._work(work, answer))
        return await answer

    def tell(self, work: Job) -> None:
        """Have `work()` done in the caller's thread, and do not wait for it."""
        self._jobs.put(work)

    def finish(self) -> None:
        """The coroutine is done: the thread may go once it has done all jobs before."""
        self._jobs.put(None)

    def serve(self) -> None:
        """Do jobs until `finish`; runs in the caller's thread."""
        while True:
            try:
                job = self._jobs.get(timeout=_SLICE_SECONDS)
            except queue.Empty:
                continue
            if job is None:
                return
            job()

    def drain(self, seconds: float) -> None:
        """Wait for `finish`, doing nothing any more, but for no longer than `seconds`."""
        for _ in range(int(seconds / _SLICE_SECONDS)):
            try:
                while self._jobs.get(timeout=_SLICE_SECONDS) is not None:
                    pass
            except queue.Empty:
                continue
            return

    def _work(self, work: Callable[[], T], answer: "asyncio.Future[T]") -> None:
        try:
            value = work()
        except StopIteration as error:  # no future can carry it
            self._settle(answer.set_exception, RuntimeError("the iterable raised StopIteration"), answer, error)
        except Exception as error:  # noqa: BLE001  # the caller's own code may raise anything; it goes back to the caller
            self._settle(answer.set_exception, error, answer)
        else:
            self._settle(answer.set_result, value, answer)

    def _settle(self, how: Callable[[Any], None], what: Any, answer: "asyncio.Future[T]", cause: Any = None) -> None:
        if cause is not None:
            what.__cause__ = cause
        self._loop.call_soon_threadsafe(lambda: None if answer.done() else how(what))


class Portal:
    """One event loop in one daemon thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._open: set[Callable[[], Coroutine[Any, Any, None]]] = set()
        self._thread = threading.Thread(target=self._run, name="embedfleet", daemon=True)
        self._thread.start()

    def run(self, make: Callable[[Caller], Coroutine[Any, Any, T]]) -> T:
        """What the coroutine `make(caller)` returns or raises.

        Whatever interrupts the wait (KeyboardInterrupt above all) cancels the coroutine and is raised again.
        """
        if self._loop.is_closed():
            raise ClientClosed("the interpreter is shutting down")
        caller = Caller(self._loop)
        tasks: list[asyncio.Task[T]] = []
        self._loop.call_soon_threadsafe(self._start, make, caller, tasks)
        try:
            caller.serve()
        except BaseException:
            self._loop.call_soon_threadsafe(lambda: tasks[0].cancel())  # noqa: PLW0108  # not there before the start
            caller.drain(_CANCEL_SECONDS)
            raise
        return _outcome(tasks[0])

    async def awaited(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What the coroutine `make()` returns or raises on this loop, awaited on any other; a cancel goes through."""
        if self._loop.is_closed():
            raise ClientClosed("the interpreter is shutting down")
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(make(), self._loop))

    def keep(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have `close()` awaited when the interpreter ends."""
        self._open.add(close)

    def forget(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Await `close()` soon, and not at the end."""
        if close in self._open and not self._loop.is_closed():
            self._open.discard(close)
            asyncio.run_coroutine_threadsafe(close(), self._loop)

    def stop(self) -> None:
        """Close what is open, then end the thread."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._close_all(), self._loop)
        self._thread.join(_CANCEL_SECONDS)

    def _start(
        self, make: Callable[[Caller], Coroutine[Any, Any, T]], caller: Caller, tasks: list[asyncio.Task[T]]
    ) -> None:
        context = contextvars.copy_context()
        context.run(_calling.set, caller)
        task = self._loop.create_task(make(caller), context=context)
        tasks.append(task)
        task.add_done_callback(lambda _: caller.finish())

    async def _close_all(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for close in list(self._open):
            await close()
        self._loop.stop()

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()


def _outcome(task: "asyncio.Task[T]") -> T:
    try:
        return task.result()
    except asyncio.CancelledError:
        raise ClientClosed("the client was closed during the call") from None


_lock = threading.Lock()
_portal: Portal | None = None


def portal() -> Portal:
    """This process's portal; made at the first use, and anew in a forked child, where no thread came along."""
    global _portal
    with _lock:
        if _portal is None:
            _portal = Portal()
            atexit.register(_portal.stop)
        return _portal


_inherited: list[Portal] = []
"""Portals of parents, kept so that nothing finalizes a loop whose selector is the parent's too."""


def _after_fork() -> None:
    global _lock, _portal
    if _portal is not None:
        atexit.unregister(_portal.stop)
        _inherited.append(_portal)
    _lock, _portal = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
