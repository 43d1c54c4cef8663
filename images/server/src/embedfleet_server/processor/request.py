"""One request: its items, and the Future by which its caller learns of their results."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from embedfleet_server.batching.types import Work

_log = logging.getLogger("embedfleet.processor")


class Request(Future[Any]):
    """Pending until its last result is there, so that it can be cancelled until then.

    The result is that of the one item, or a list over several in which a failed item has its exception.
    """

    def __init__(self, items: Sequence[Any], priority: int, *, single: bool) -> None:
        super().__init__()
        self.payloads: list[Payload] = [(self, item) for item in items]
        self.priority = priority
        self.work: Work | None = None
        """Set once the core has it; from then on everything but `cancel` is for the loop's thread alone."""
        self.deadline = 0.0
        self.is_settled = False
        self.on_cancel: Callable[[Request], None] | None = None
        self._single = single
        self._results: list[Any] = [None] * len(items)
        self._missing = len(items)

    @property
    def size(self) -> int:
        """How many items it has."""
        return len(self._results)

    def cancel(self) -> bool:
        """As of any Future; what still waits costs no call, and what runs goes on for the others."""
        is_cancelled = super().cancel()
        if is_cancelled and self.on_cancel is not None:
            self.on_cancel(self)
        return is_cancelled

    def take(self, index: int, result: Any) -> bool:
        """The result of one item, or the exception instead of it; whether it was the last one missing."""
        self._results[index] = result
        self._missing -= 1
        return not self._missing

    def answer(self) -> None:
        """Every item has its result: tell the caller."""
        only = self._results[0] if self._single else None
        if isinstance(only, Failed):
            self.fail(only.error)
        else:
            self._end(lambda: self.set_result(only if self._single else self._results))

    def fail(self, error: BaseException) -> None:
        """The whole request gets `error`."""
        self._end(lambda: self.set_exception(error))

    def forget(self) -> None:
        """Cancel it, and let those know who wait for several futures at once."""
        _tell(super().cancel)
        self._end(lambda: None)

    def _end(self, tell: Callable[[], None]) -> None:
        """Once; the caller may cancel in another thread at this very moment, and then hears nothing else."""
        if self.is_settled:
            return
        self.is_settled = True
        if self.set_running_or_notify_cancel():
            _tell(tell)


def _tell(tell: Callable[[], object]) -> None:
    """Callbacks of a Future run here; one that raises SystemExit would end the loop, and with it everyone's answers."""
    try:
        tell()
    except BaseException:  # noqa: BLE001  # as said
        _log.exception("a done-callback of a Future failed; the rest goes on")


class Failed:
    """Stands where the result of an item would: exceptions are told apart that a callable gives as results."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


Payload = tuple[Request, Any]
"""An item with the request that it is part of."""
