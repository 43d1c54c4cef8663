"""The environment, read here and nowhere else."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from embedfleet.api.local import runtime_directory


@dataclass(frozen=True, slots=True)
class Environment:
    """What the surroundings say: an address and a key to use, and where local servers put their records."""

    url: str | None
    api_key: str | None
    records: Path


def read(environ: Mapping[str, str] | None = None) -> Environment:
    """The environment of this process: EMBEDFLEET_URL, EMBEDFLEET_API_KEY, XDG_RUNTIME_DIR."""
    given = os.environ if environ is None else environ
    return Environment(
        given.get("EMBEDFLEET_URL") or None, given.get("EMBEDFLEET_API_KEY") or None, runtime_directory(given)
    )
