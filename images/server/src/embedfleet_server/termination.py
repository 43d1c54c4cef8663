"""The last words of a container: one line of JSON where Kubernetes looks for it, read by the operator."""

import logging
import os
from pathlib import Path

from embedfleet.api.termination import Code, Termination

_log = logging.getLogger(__name__)
_MOST_CHARACTERS = 4096  # of a message: what the contract allows; `to_line` cuts further where bytes are more


def leave_word(path: Path | None, code: Code, message: str, model: str | None = None) -> None:
    """Write the cause to `path`; None tells nobody. The file is never made: Kubernetes has made and mounted it."""
    _write(path, Termination(code=code, message=message[:_MOST_CHARACTERS], model=model).to_line())


def take_back(path: Path | None) -> None:
    """The cause is gone: leave an empty file, as it was found."""
    _write(path, "")


def _write(path: Path | None, text: str) -> None:
    if path is None:
        return
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC), "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:  # the end must not fail for want of last words
        _log.warning("the cause cannot be left in %s: %s", path, error.strerror or error)
