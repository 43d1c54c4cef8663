"""A progress bar, drawn by the calling thread."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from types import TracebackType
from typing import Any

Progress = bool | Callable[[int, int | None], None] | None
"""True: a bar; False: none; None: a bar where somebody looks, but for one text alone; or a function called with (done,
total or None)."""

Done = Callable[[int], None]

_SHOW_AFTER_SECONDS = 0.5


def reporter(progress: Progress, total: int | None) -> AbstractContextManager[Done]:
    """A context whose value is called with the texts done since the last call."""
    if callable(progress):
        return _Function(progress, total)
    if progress or (progress is None and total != 1 and _somebody_looks()):
        return _Bar(total, eager=progress is True)
    return nullcontext(_nothing)


def _nothing(_: int) -> None:
    return None


def _in_jupyter() -> bool:
    kernel = sys.modules.get("ipykernel.zmqshell")
    shell = sys.modules.get("IPython")
    return kernel is not None and shell is not None and isinstance(shell.get_ipython(), kernel.ZMQInteractiveShell)


def _somebody_looks() -> bool:
    return _in_jupyter() or bool(sys.stderr and sys.stderr.isatty())


class _Function(AbstractContextManager[Done]):
    def __init__(self, function: Callable[[int, int | None], None], total: int | None) -> None:
        self._function, self._total, self._done = function, total, 0

    def __enter__(self) -> Done:
        return self._add

    def __exit__(self, *_: object) -> None:
        return None

    def _add(self, count: int) -> None:
        self._done += count
        self._function(self._done, self._total)


class _Bar(AbstractContextManager[Done]):
    def __init__(self, total: int | None, *, eager: bool) -> None:
        delay = 0.0 if eager else _SHOW_AFTER_SECONDS
        self._bar: Any = _tqdm()(total=total, unit=" texts", delay=delay, dynamic_ncols=True)

    def __enter__(self) -> Done:
        return self._add

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._bar.close()

    def _add(self, count: int) -> None:
        self._bar.update(count)


def _tqdm() -> Any:
    if _in_jupyter() and find_spec("ipywidgets") is not None:
        from tqdm.notebook import tqdm as notebook_bar

        return notebook_bar
    from tqdm import tqdm

    return tqdm
