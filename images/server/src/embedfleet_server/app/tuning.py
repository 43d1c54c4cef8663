"""The batching values in force: the settings file's, with the local overrides made over the control socket put on top.

An override lasts until it is taken back or the server ends; `/state` shows it as such. A settings file that cannot be
used leaves the old values in force, is logged once for each of its contents, and counted.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from embedfleet.api.problems import problems
from embedfleet.api.settings import BATCHING_FILE, BatchingSettings
from embedfleet_server.app.settings import WrongSettings, load
from embedfleet_server.engine.engine import Engine
from embedfleet_server.engine.errors import InvalidRequest

_LOOK_SECONDS = 1.0  # a kubelet swaps the whole directory; a stat a second costs nothing and is soon enough
_log = logging.getLogger(__name__)


class Tuning:
    """What may change while the server runs."""

    def __init__(self, engine: Engine, directory: Path) -> None:
        self._engine, self._directory = engine, directory
        self._from_file = engine.settings
        self._raw = _contents(directory)
        self.overrides: dict[str, Any] = {}
        self.rejected_files = 0

    def override(self, values: Mapping[str, Any]) -> None:
        """Put values (fields of `spec.batching`) over the file's; `InvalidRequest` names every wrong one."""
        self._take(self.overrides | dict(values))

    def clear(self) -> None:
        """Take every override back."""
        self._take({})

    def look(self) -> None:
        """Take up the settings file if its contents changed."""
        raw = _contents(self._directory)
        if raw in (self._raw, None):
            return
        self._raw = raw
        try:
            self._from_file = load(self._directory).batching
            self._engine.apply(_merged(self._from_file, self.overrides))
        except (WrongSettings, InvalidRequest) as error:
            self.rejected_files += 1
            _log.error("the new %s is not used, the old values stay: %s", BATCHING_FILE, error)
            return
        _log.info("settings taken up generation=%d", self._from_file.generation)

    async def watch(self, sleep: Callable[[float], Any] = asyncio.sleep) -> None:
        """Look once a second, for ever."""
        while True:
            await sleep(_LOOK_SECONDS)
            self.look()

    def state(self) -> dict[str, Any]:
        """For `/state`."""
        return {
            "overrides": self.overrides,
            "paused": self._engine.paused,
            "rejected_settings_files": self.rejected_files,
        }

    def _take(self, overrides: dict[str, Any]) -> None:
        self._engine.apply(_merged(self._from_file, overrides))
        self.overrides = overrides
        _log.info("local overrides are now %s", overrides)


def _merged(settings: BatchingSettings, overrides: Mapping[str, Any]) -> BatchingSettings:
    plain = settings.model_dump(by_alias=True, exclude_none=True)
    plain["batching"] |= overrides
    try:
        return BatchingSettings.model_validate(plain)
    except ValidationError as error:
        raise InvalidRequest("; ".join(str(problem) for problem in problems(error))) from error


def _contents(directory: Path) -> bytes | None:
    """The file's bytes; None while it is not there (a directory being swapped)."""
    try:
        return (directory / BATCHING_FILE).read_bytes()
    except OSError:
        return None
