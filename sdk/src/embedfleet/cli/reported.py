"""What goes wrong in a command becomes one message on standard error and an exit status."""

import functools
import os
import sys
from collections.abc import Callable
from typing import ParamSpec

import typer

from embedfleet.errors import BadInput, EmbedfleetError, ManifestInvalid

FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 130

P = ParamSpec("P")


def reported(command: Callable[P, None]) -> Callable[P, None]:
    """`command` with its errors told and turned into exit statuses."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except typer.Exit:  # the command has told its own status
            raise
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  # a person at a terminal has no use for a traceback
            raise typer.Exit(_status(error)) from None

    return run


def _status(error: BaseException) -> int:
    """Tell of `error`; its exit status."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(
        error, BrokenPipeError
    ):  # who reads the output has read enough; the interpreter's flush must not fail
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    expected = isinstance(error, EmbedfleetError | OSError)
    words = str(error) if expected else f"unexpected {type(error).__name__}: {error}"
    print(f"error: {words}", *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
    return WRONG_INPUT if isinstance(error, BadInput | ManifestInvalid) else FAILED
