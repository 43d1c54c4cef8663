"""Where blocking work runs: loading, tokenising and forwards, each in threads of its own, never on the event loop."""

import asyncio
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Protocol, TypeVar

from embedfleet_server.engine.errors import DeviceLost
from embedfleet_server.engine.forwards import Computed, Launches, TellsItsEnd
from embedfleet_server.engine.protocols import Encoded, Item, Loader, Model, Side
from embedfleet_server.engine.rows import AnyRows
from embedfleet_server.engine.thread_names import name_thread
from embedfleet_server.environment import run_anywhere

TOKENIZER_THREADS = 3
"""Two for any texts, and one for large ones, which may hold it for seconds."""
_START_SECONDS = 10.0  # for threads to begin; they may not wait for ever for one that the system refuses

_T = TypeVar("_T")


class Workers(Protocol):
    """What the engine awaits; a simulation puts a virtual device here."""

    async def load(self, loader: Loader) -> Model:
        """The loaded model."""

    async def encode(
        self,
        model: Model,
        items: Sequence[Item],
        prompt: str,
        input_type: str | None = None,
        side: Side | None = None,
    ) -> list[Encoded]:
        """`Model.encode`, elsewhere."""

    async def aside(self, call: Callable[[], _T]) -> _T:
        """What `call` gives, where texts are tokenised."""

    async def forward(self, model: Model, batch: Sequence[Encoded]) -> Computed:
        """`Model.forward`, on the model's device; of one that stands on several, `model` is a copy.

        Those of a device follow one another in the order of the calls.
        """

    def close(self) -> None:
        """No more work will come; does not wait for what hangs."""


class ThreadWorkers:
    """One thread that loads, a few that tokenise, one for each device, or two."""

    def __init__(
        self, tokenizer_threads: int = TOKENIZER_THREADS, on_lost: Callable[[DeviceLost], None] = lambda error: None
    ) -> None:
        """`on_lost` hears, on the event loop, that a device is lost, before anyone else does."""
        self._on_lost = on_lost
        self._tokenizing = _started(tokenizer_threads, "tokenize")
        self._single: dict[str, ThreadPoolExecutor] = {}
        self._results: dict[str, _Results] = {}

    async def load(self, loader: Loader) -> Model:
        """The loaded model.

        The thread ends with the load: torch keeps a team of workers for every thread that has computed, and each team
        slows the others down (one text took 9.8 instead of 7.2 ms beside an idle one).
        """
        thread = _threads(1, "load")
        loading = asyncio.get_running_loop().run_in_executor(thread, loader)
        thread.shutdown(wait=False)
        try:
            return await loading
        except DeviceLost as error:
            self._on_lost(error)
            raise

    async def encode(
        self,
        model: Model,
        items: Sequence[Item],
        prompt: str,
        input_type: str | None = None,
        side: Side | None = None,
    ) -> list[Encoded]:
        """`Model.encode` in a tokenizer thread."""
        return await self.aside(lambda: model.encode(items, prompt, input_type, side))

    async def aside(self, call: Callable[[], _T]) -> _T:
        """What `call` gives, in a tokenizer thread."""
        return await asyncio.get_running_loop().run_in_executor(self._tokenizing, call)

    async def forward(self, model: Model, batch: Sequence[Encoded]) -> Computed:
        """`Model.forward` in the thread of its device.

        Where the device computes by itself, or rows side by side, results are waited for in a second thread, so that
        the first hands the next batch over meanwhile: a lane whose row has ended begins one of that.
        """
        loop, device = asyncio.get_running_loop(), model.info.device
        try:
            if device not in self._results and isinstance(model, Launches) and model.launches:
                self._results[device] = _Results(self._thread(f"results {device}", run_anywhere))
            made = await loop.run_in_executor(
                self._thread(f"device {device}"), _computed, model, batch, self._results.get(device)
            )
            return made if isinstance(made, Computed) else await asyncio.wrap_future(made)
        except DeviceLost as error:
            self._on_lost(error)
            raise

    def close(self) -> None:
        """Let the threads end once they are done; does not wait for them."""
        for pool in (self._tokenizing, *self._single.values()):
            pool.shutdown(wait=False, cancel_futures=True)

    def _thread(self, name: str, begin: Callable[[], None] = lambda: None) -> ThreadPoolExecutor:
        if name not in self._single:
            self._single[name] = _threads(1, name, begin)
        return self._single[name]


class _Results:
    """The thread that waits for what a device computes by itself, batch after batch."""

    def __init__(self, thread: ThreadPoolExecutor) -> None:
        self._thread = thread
        self._last: Callable[[], Future[Computed] | None] = lambda: None

    @property
    def are_all_there(self) -> bool:
        """Whether nothing is waited for."""
        last = self._last()
        return last is None or last.done()

    def settle(self) -> None:
        """Wait until all are there."""
        if (last := self._last()) is not None:
            wait([last])

    def behind(self, computed: Callable[[], Computed]) -> Future[Computed]:
        """What the call gives, once those before it are there."""
        made = self._thread.submit(computed)
        self._last = weakref.ref(made)  # what it holds is large, and the next one may come hours later
        return made


def _computed(model: Model, batch: Sequence[Encoded], results: _Results | None) -> Computed | Future[Computed]:
    """In the thread of the device; `results` waits where the device has computed by itself before."""
    if results is not None and isinstance(model, Launches) and model.launches:
        launched, peak = model.launch(batch), model.peak_mib()
        if launched is not None:
            return results.behind(lambda: _waited(launched, peak))
    if results is not None and model.info.device == "cpu":
        results.settle()  # a GPU computes one after the other by itself
    is_next = results is None or results.are_all_there  # a way through another thread would cost one text its time
    computed = _ended(model.forward(batch), model.peak_mib())
    return computed if results is None or is_next else results.behind(lambda: computed)


def _waited(launched: Callable[[], AnyRows], peak_mib: float | None) -> Computed:
    rows = launched()
    told: object = launched
    return Computed(rows, told.ended if isinstance(told, TellsItsEnd) else time.monotonic(), peak_mib)


def _ended(rows: AnyRows, peak_mib: float | None) -> Computed:
    return Computed(rows, time.monotonic(), peak_mib)  # asyncio's clock


def _threads(count: int, name: str, begin: Callable[[], None] = lambda: None) -> ThreadPoolExecutor:
    def initialize() -> None:
        name_thread(name)
        begin()

    return ThreadPoolExecutor(count, name, initializer=initialize)


def _started(count: int, name: str) -> ThreadPoolExecutor:
    """With all its threads there: none is made amid a request, and how many the process has tells of leaks."""
    pool, together = _threads(count, name), threading.Barrier(count, timeout=_START_SECONDS)
    for started in [pool.submit(together.wait) for _ in range(count)]:
        started.result()
    return pool
